//! `mainstem admin`: an operator's commands, over a relay's HTTP API.
//!
//! It knows the API as anybody could ([`crate::admin`] serves its OpenAPI document), and nothing else of the relay.

mod client;
mod say;
pub(crate) mod table;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use http::Method;
use serde_json::{Map, Value, json};

pub use self::client::Error;
use self::client::{Ask, Client};
use crate::cli::admin::{
    AccountsCommand, AdminArgs, AdminCommand, DomainsCommand, From, HostStatus, HostsCommand, Limit, LimitsArgs,
    RequestCrawlCommand, SubscribersCommand,
};

/// How an answer is said to people.
type Say = fn(&Value) -> String;

/// Does one command and says how it went.
pub async fn run(args: &AdminArgs) -> ExitCode {
    match answer(args).await {
        Ok((answer, say)) => {
            let text = if args.relay.json { format!("{answer:#}\n") } else { say(&answer) };
            // Who does not want to read it has gone.
            let _ = io::stdout().write_all(text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

async fn answer(args: &AdminArgs) -> Result<(Value, Say), Error> {
    let client = Client::new(&args.relay)?;
    match &args.command {
        AdminCommand::Hosts(command) => hosts(&client, command).await,
        AdminCommand::Domains(command) => domains(&client, command).await,
        AdminCommand::RequestCrawl(command) => request_crawl(&client, command).await,
        AdminCommand::Accounts(command) => accounts(&client, command).await,
        AdminCommand::Subscribers(SubscribersCommand::List) => {
            Ok((client.get(&["subscribers"], Vec::new()).await?, say::subscribers))
        }
        AdminCommand::Subscribers(SubscribersCommand::Disconnect { id }) => {
            let answer = client.change(Method::DELETE, &["subscribers", &id.to_string()], None).await?;
            Ok((answer, say::disconnected))
        }
        AdminCommand::Coverage => Ok((client.get(&["coverage"], Vec::new()).await?, say::coverage)),
        AdminCommand::Audit { limit, before } => {
            let mut query = vec![("limit", limit.to_string())];
            query.extend(before.map(|before| ("before", before.to_string())));
            Ok((client.get(&["audit"], query).await?, say::changes))
        }
    }
}

async fn hosts(client: &Client, command: &HostsCommand) -> Result<(Value, Say), Error> {
    match command {
        HostsCommand::List { status, search } => {
            let mut query = vec![("limit", "1000".to_owned())];
            query.extend(status.map(|status| ("status", host_status(status).to_owned())));
            query.extend(search.clone().map(|search| ("search", search)));
            Ok((client.get_all(&["hosts"], "hosts", query).await?, say::hosts))
        }
        HostsCommand::Show { host } => Ok((client.get(&["hosts", host], Vec::new()).await?, say::host)),
        HostsCommand::Add { host, from } => {
            let body = from.map(|from| match from {
                From::Live => json!({ "from": "live" }),
                From::Oldest => json!({ "from": "oldest" }),
            });
            Ok((client.change(Method::PUT, &["hosts", host], body).await?, say::host_added))
        }
        HostsCommand::Rewind { host, to } => {
            let body = to.map(|to| json!({ "to": to }));
            Ok((client.change(Method::POST, &["hosts", host, "rewind"], body).await?, say::host_rewound))
        }
        HostsCommand::Limits(args) => limits(client, args).await,
        HostsCommand::Ban { host } => {
            Ok((client.change(Method::PUT, &["hosts", host, "ban"], None).await?, say::host_banned))
        }
        HostsCommand::Unban { host } => {
            Ok((client.change(Method::DELETE, &["hosts", host, "ban"], None).await?, say::host_unbanned))
        }
    }
}

async fn limits(client: &Client, args: &LimitsArgs) -> Result<(Value, Say), Error> {
    let path = ["hosts", &args.host, "limits"];
    let mut exception = Map::new();
    for (name, limit) in [
        ("eventsPerSecond", args.events_per_second),
        ("eventsPerHour", args.events_per_hour),
        ("eventsPerDay", args.events_per_day),
        ("bytesPerSecond", args.bytes_per_second),
        ("accountsMax", args.accounts_max),
    ] {
        exception.extend(limit.map(|limit| match limit {
            Limit::Unlimited => (name.to_owned(), json!("unlimited")),
            Limit::AtMost(number) => (name.to_owned(), json!(number)),
        }));
    }
    let answer = match (args.clear, exception.is_empty()) {
        (true, _) => client.change(Method::DELETE, &path, None).await?,
        (false, true) => client.get(&path, Vec::new()).await?,
        (false, false) => client.change(Method::PUT, &path, Some(exception.into())).await?,
    };
    Ok((answer, say::limits))
}

async fn domains(client: &Client, command: &DomainsCommand) -> Result<(Value, Say), Error> {
    match command {
        DomainsCommand::List => Ok((client.get(&["domain-bans"], Vec::new()).await?, say::domains)),
        DomainsCommand::Ban { domain } => {
            Ok((client.change(Method::PUT, &["domain-bans", domain], None).await?, say::domain_banned))
        }
        DomainsCommand::Unban { domain } => {
            Ok((client.change(Method::DELETE, &["domain-bans", domain], None).await?, say::domain_unbanned))
        }
    }
}

async fn request_crawl(client: &Client, command: &RequestCrawlCommand) -> Result<(Value, Say), Error> {
    let body = match command {
        RequestCrawlCommand::Show => {
            return Ok((client.get(&["request-crawl"], Vec::new()).await?, say::request_crawl));
        }
        RequestCrawlCommand::On => json!({ "accepted": true }),
        RequestCrawlCommand::Off => json!({ "accepted": false }),
        RequestCrawlCommand::Quota { per_day, per_domain } => {
            let mut quota = Map::new();
            quota.extend(per_day.map(|number| ("newHostsPerDay".to_owned(), number.into())));
            quota.extend(per_domain.map(|number| ("newHostsPerDayAndDomain".to_owned(), number.into())));
            quota.into()
        }
    };
    Ok((client.change(Method::PATCH, &["request-crawl"], Some(body)).await?, say::request_crawl))
}

async fn accounts(client: &Client, command: &AccountsCommand) -> Result<(Value, Say), Error> {
    match command {
        AccountsCommand::Show { did } => Ok((client.get(&["accounts", did], Vec::new()).await?, say::account)),
        AccountsCommand::Takedown { did } => {
            Ok((client.change(Method::PUT, &["accounts", did, "takedown"], None).await?, say::account_taken_down))
        }
        AccountsCommand::Restore { did } => {
            Ok((client.change(Method::DELETE, &["accounts", did, "takedown"], None).await?, say::account_restored))
        }
        AccountsCommand::ReResolve { did } => {
            Ok((client.change(Method::POST, &["accounts", did, "re-resolve"], None).await?, say::identity))
        }
    }
}

/// The API's word.
fn host_status(status: HostStatus) -> &'static str {
    match status {
        HostStatus::Active => "active",
        HostStatus::Idle => "idle",
        HostStatus::Offline => "offline",
        HostStatus::Throttled => "throttled",
        HostStatus::Banned => "banned",
    }
}

impl Client {
    async fn get(&self, path: &[&str], query: Vec<(&'static str, String)>) -> Result<Value, Error> {
        self.ask(Ask { method: Method::GET, path, query, body: None }).await
    }

    /// All pages as one.
    async fn get_all(&self, path: &[&str], items: &str, query: Vec<(&'static str, String)>) -> Result<Value, Error> {
        let mut all = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let mut query = query.clone();
            query.extend(cursor.take().map(|cursor| ("cursor", cursor)));
            let mut page = self.get(path, query).await?;
            if let Value::Array(more) = page[items].take() {
                all.extend(more);
            }
            match page["cursor"].take() {
                Value::String(next) => cursor = Some(next),
                _ => return Ok(json!({ items: all })),
            }
        }
    }

    async fn change(&self, method: Method, path: &[&str], body: Option<Value>) -> Result<Value, Error> {
        self.ask(Ask { method, path, query: Vec::new(), body }).await
    }
}
