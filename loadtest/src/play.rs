//! `loadtest serve --traffic`.

use std::{path::Path, time::Duration};

use anyhow::Context;
use loadtest::traffic::{self, Names, Pace, Player};
use tokio::time::{Instant, MissedTickBehavior};

use crate::serve::print_invitation;

pub(crate) async fn run(folder: &Path, names: Names, pace: Pace, limit: Option<Duration>) -> anyhow::Result<()> {
    let player = Player::start(folder, traffic::Config { names }).await.context("failed to play the traffic")?;
    print_invitation(player.plc_url(), player.hosts());
    let stop_after = async {
        match limit {
            Some(limit) => tokio::time::sleep(limit).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = play(&player, pace) => {}
        () = stop_after => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    player.stop().await;
    Ok(())
}

/// Announces the accounts to whoever comes, then sends, and says each second how far it is.
async fn play(player: &Player, pace: Pace) {
    let (hosts, warm_up, all) =
        (player.hosts().len(), player.manifest().warm_up.events, player.manifest().measured.events);
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    player.announce();
    while player.announced() < warm_up {
        ticks.tick().await;
        println!(
            "announcing repos: {} of {warm_up} events, {} subscribers of {hosts} hosts",
            player.announced(),
            player.subscribers()
        );
    }
    player.play(pace);
    let (mut before, mut at) = (player.stats(), Instant::now());
    while player.stats().events < all {
        ticks.tick().await;
        let now = player.stats();
        let seconds = at.elapsed().as_secs_f64();
        at = Instant::now();
        println!(
            "sent {} of {all} events, {:.0}/s, {:.1} MB/s; the latest was {:.1} ms behind its time",
            now.events,
            (now.events - before.events) as f64 / seconds,
            (now.bytes - before.bytes) as f64 / seconds / 1e6,
            now.behind_max.as_secs_f64() * 1e3,
        );
        before = now;
    }
    println!("all is sent; who comes again still finds it. Ctrl-C ends.");
    std::future::pending().await
}
