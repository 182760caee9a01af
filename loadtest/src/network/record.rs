//! Records in the shapes and sizes that people's clients write.

use atproto::{
    cbor::Writer,
    cid::Cid,
    syntax::{Did, Tid},
};
use rand::{Rng, RngExt};

/// What a record says, which decides its collection and size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Genre {
    Post,
    Like,
    Repost,
    Follow,
    Profile,
}

impl Genre {
    pub(super) fn collection(self) -> &'static str {
        match self {
            Genre::Post => "app.bsky.feed.post",
            Genre::Like => "app.bsky.feed.like",
            Genre::Repost => "app.bsky.feed.repost",
            Genre::Follow => "app.bsky.graph.follow",
            Genre::Profile => "app.bsky.actor.profile",
        }
    }

    /// Where a new record of this genre stands.
    pub(super) fn path(self, tid: Tid) -> String {
        match self {
            Genre::Profile => format!("{}/self", self.collection()),
            Genre::Post | Genre::Like | Genre::Repost | Genre::Follow => format!("{}/{tid}", self.collection()),
        }
    }

    /// The genre of a record that stands at `path`.
    pub(super) fn of_path(path: &str) -> Genre {
        [Genre::Like, Genre::Repost, Genre::Follow, Genre::Profile]
            .into_iter()
            .find(|genre| path.starts_with(genre.collection()))
            .unwrap_or(Genre::Post)
    }
}

/// What a record points to: somebody else's record.
pub(super) struct Target<'a> {
    pub(super) did: &'a Did,
    pub(super) path: &'a str,
    pub(super) cid: Cid,
}

/// A record's bytes, strict DAG-CBOR.
pub(super) fn write(genre: Genre, target: &Target<'_>, created_at: &str, rng: &mut impl Rng) -> Vec<u8> {
    let kind = ("$type", Value::Text(genre.collection().to_owned()));
    let created = ("createdAt", Value::Text(created_at.to_owned()));
    let map = match genre {
        Genre::Post => {
            let mut fields = vec![
                kind,
                created,
                ("text", Value::Text(text(rng))),
                ("langs", Value::Array(vec![Value::Text("en".to_owned())])),
            ];
            if rng.random_bool(0.35) {
                let parent = strong_ref(target);
                fields.push(("reply", Value::Map(vec![("root", parent.clone()), ("parent", parent)])));
            }
            if rng.random_bool(0.2) {
                fields.push(("embed", picture(rng)));
            }
            fields
        }
        Genre::Like | Genre::Repost => vec![kind, created, ("subject", strong_ref(target))],
        Genre::Follow => vec![kind, created, ("subject", Value::Text(target.did.to_string()))],
        Genre::Profile => {
            vec![kind, created, ("displayName", Value::Text(words(rng, 2))), ("description", Value::Text(text(rng)))]
        }
    };
    let mut out = Writer::new();
    Value::Map(map).write(&mut out);
    out.into_bytes()
}

fn strong_ref(target: &Target<'_>) -> Value {
    Value::Map(vec![
        ("uri", Value::Text(format!("at://{}/{}", target.did, target.path))),
        ("cid", Value::Text(target.cid.to_string())),
    ])
}

fn picture(rng: &mut impl Rng) -> Value {
    let mut digest = [0; 32];
    rng.fill(&mut digest);
    let blob = Value::Map(vec![
        ("$type", Value::Text("blob".to_owned())),
        ("ref", Value::Link(Cid { codec: atproto::cid::Codec::Raw, digest })),
        ("mimeType", Value::Text("image/jpeg".to_owned())),
        ("size", Value::Unsigned(rng.random_range(10_000..1_000_000))),
    ]);
    Value::Map(vec![
        ("$type", Value::Text("app.bsky.embed.images".to_owned())),
        ("images", Value::Array(vec![Value::Map(vec![("alt", Value::Text(words(rng, 8))), ("image", blob)])])),
    ])
}

/// Mostly short, sometimes as long as a post may be.
fn text(rng: &mut impl Rng) -> String {
    let longest = if rng.random_bool(0.2) { 45 } else { 18 };
    let count = rng.random_range(2..=longest);
    words(rng, count)
}

fn words(rng: &mut impl Rng, count: usize) -> String {
    const WORDS: [&str; 32] = [
        "river", "tide", "morning", "coffee", "today", "garden", "again", "über", "light", "slow", "train", "the",
        "of", "and", "winter", "música", "small", "hello", "cloud", "paper", "walk", "日本", "quiet", "friend",
        "bread", "about", "never", "always", "blue", "song", "🌊", "home",
    ];
    let mut text = String::new();
    for n in 0..count {
        if n > 0 {
            text.push(' ');
        }
        text.push_str(WORDS[rng.random_range(0..WORDS.len())]);
    }
    text
}

#[derive(Clone)]
enum Value {
    Text(String),
    Unsigned(u64),
    Link(Cid),
    Array(Vec<Value>),
    Map(Vec<(&'static str, Value)>),
}

impl Value {
    fn write(self, out: &mut Writer) {
        match self {
            Value::Text(text) => out.text(&text),
            Value::Unsigned(number) => out.unsigned(number),
            Value::Link(cid) => out.cid(&cid),
            Value::Array(items) => {
                out.array(items.len());
                for item in items {
                    item.write(out);
                }
            }
            Value::Map(mut fields) => {
                // The canonical order: shorter keys first, then by bytes.
                fields.sort_by_key(|(key, _)| (key.len(), *key));
                out.map(fields.len());
                for (key, value) in fields {
                    out.text(key);
                    value.write(out);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use atproto::cbor::{Limits, validate};
    use rand::{SeedableRng, rngs::Xoshiro256PlusPlus};

    use super::*;

    #[test]
    fn records_are_canonical_and_of_a_likely_size() {
        let mut rng = Xoshiro256PlusPlus::seed_from_u64(1);
        let did = Did::parse("did:plc:ewvi7nxzyoun6zhxrhs64oiz").unwrap();
        let target = Target { did: &did, path: "app.bsky.feed.post/3k2aaaaaaaa22", cid: Cid::of_cbor(b"x") };
        for genre in [Genre::Post, Genre::Like, Genre::Repost, Genre::Follow, Genre::Profile] {
            for _ in 0..200 {
                let bytes = write(genre, &target, "2026-11-22T08:53:09.160123Z", &mut rng);
                assert_eq!(validate(&bytes, &Limits::DEFAULT), Ok(&[][..]));
                assert!((80..2_000).contains(&bytes.len()), "{genre:?} of {} bytes", bytes.len());
            }
        }
    }
}
