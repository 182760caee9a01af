//! What each reason for a refusal means, and what whoever writes or runs the host can do about it: the texts of the
//! host's page and JSON, in one table.

use storage::refusal::Reason;

/// What is said of a reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advice {
    /// What it means: a short sentence's beginning, without a full stop.
    pub meaning: &'static str,
    /// What to do: one sentence.
    pub remedy: &'static str,
}

/// The texts of a reason.
pub fn advice(reason: Reason) -> Advice {
    let (meaning, remedy) = match reason {
        Reason::FrameTooLarge => (
            "A message over 5 MiB",
            "Split large writes into several commits, and announce what does not fit with a #sync, so that no message is \
             over 5 MiB.",
        ),
        Reason::BadHeader => (
            "A message whose header can't be read",
            "Send each event as one binary WebSocket message that begins with the header map {op: 1, t: \"#commit\"} in \
             canonical DAG-CBOR (keys sorted by length, then bytes; shortest integers; definite lengths).",
        ),
        Reason::BadPayload => (
            "A payload that is not what the lexicon asks for",
            "Compare the payload with com.atproto.sync.subscribeRepos: every required key there (null where it is \
             nullable), right types, canonical DAG-CBOR, nothing after the map.",
        ),
        Reason::SeqNotRising => (
            "A seq that does not rise",
            "Give every event a higher seq than all before it, across restarts too; if the counter was lost, close the \
             stream and go on from a number above any that was ever sent.",
        ),
        Reason::IdentityNotFound => (
            "An account that has no identity",
            "Publish the account's DID document (in the PLC directory, or at /.well-known/did.json for did:web) before \
             the first event, then send #identity to have it looked up anew.",
        ),
        Reason::IdentityUnanswered => (
            "An account whose own host does not answer for its identity",
            "Serve /.well-known/did.json of the did:web name over HTTPS, without a redirect, within five seconds; events \
             sent meanwhile wait for some time and are then refused, and it is asked for again every two minutes.",
        ),
        Reason::NoSigningKey => (
            "A DID document without a usable signing key",
            "Put a verification method into the document whose id ends in #atproto, of type Multikey with a K-256 or \
             P-256 key, then send #identity.",
        ),
        Reason::NoPds => (
            "A DID document that names no host",
            "Put a service into the document with an id that ends in #atproto_pds, the type \
             AtprotoPersonalDataServer and an endpoint of scheme and host alone, then send #identity.",
        ),
        Reason::WrongHost => (
            "An event of an account that lives elsewhere",
            "If the account has moved here, update the #atproto_pds service of its DID document and send #identity; if it \
             has moved away, stop sending its events.",
        ),
        Reason::AccountInactive => (
            "A commit of an account that is not active",
            "Send an #account event with active: true when an account comes back, and answer \
             com.atproto.sync.getRepoStatus with the same, before its next commit.",
        ),
        Reason::AccountThrottled => (
            "An event of an account over this host's cap",
            "Nothing is wrong with the events: ask this relay's operator to raise the cap of accounts for the host, and \
             the account heals with its next commit.",
        ),
        Reason::BlocksTooLarge => (
            "Too many bytes of blocks",
            "Keep the blocks of a #commit within 2,000,000 bytes by splitting the write, and those of a #sync within 10,000 \
             by sending the commit block alone.",
        ),
        Reason::TooManyOps => ("More than 200 ops", "Split the write into commits of at most 200 ops each."),
        Reason::RecordTooLarge => (
            "A record over 1 MiB",
            "Refuse records over 1,048,576 bytes when they are written, and keep large things in blobs.",
        ),
        Reason::TooBig => (
            "A commit with tooBig set",
            "Send tooBig: false always; announce a change that does not fit a #commit with a #sync instead.",
        ),
        Reason::Rebase => (
            "A commit with rebase set",
            "Send rebase: false always; announce a repo that begins anew with a #sync instead.",
        ),
        Reason::BadRev => (
            "A rev that is not a TID",
            "Make revs with a TID clock: 13 characters of base32-sortable, the first bit zero.",
        ),
        Reason::StaleRev => (
            "A rev that is not above the last one",
            "Make each commit's rev higher than the repo's last one, also after the clock was set back or the host was \
             restored from a backup.",
        ),
        Reason::FutureRev => (
            "A rev in the future",
            "Set the host's clock (NTP), and make revs from it: one may be at most five minutes ahead.",
        ),
        Reason::BadCar => (
            "Blocks that are not a CAR",
            "Send blocks as a CAR of version 1: varint lengths, a header with roots and version, then each block's CID and \
             bytes.",
        ),
        Reason::WrongBlockHash => (
            "A block that does not hash to its CID",
            "Name each block by the SHA-256 of exactly the bytes that are sent; if that is so, look for damaged storage.",
        ),
        Reason::ExtraBlocks => (
            "A #sync with more than the commit block",
            "Send the signed commit block alone in a #sync; readers fetch the rest with getRepo.",
        ),
        Reason::RootMismatch => (
            "A CAR whose root is not the commit",
            "Make the CAR's only root the CID in the event's commit field, and put that block into the CAR.",
        ),
        Reason::BadCommit => (
            "A block that is not a commit of version 3",
            "Write the commit as canonical DAG-CBOR with did, version: 3, data, rev, prev (null, but there) and sig.",
        ),
        Reason::CommitDidMismatch => {
            ("A commit of another account", "Send each commit in an event whose repo is the commit's own did.")
        }
        Reason::CommitRevMismatch => {
            ("A commit with another rev than its event", "Take the event's rev from the signed commit.")
        }
        Reason::HighS => (
            "A signature with a high S",
            "Normalise signatures before they are stored: where S is above half the curve's order, replace it by the \
             order minus S.",
        ),
        Reason::BadSignature => (
            "A signature that is not the account's key's",
            "Sign the commit without sig, in canonical DAG-CBOR, with the key that the DID document names now; after a \
             rotation update the document first, then send #identity.",
        ),
        Reason::BadPath => (
            "A path that is not COLLECTION/RKEY",
            "Check collections (NSIDs) and record keys when records are written, and write the path with one slash.",
        ),
        Reason::BadOp => (
            "An op whose cid or prev does not fit its action",
            "Give a create its cid alone, an update both cid and prev, a delete prev alone with cid null, and let several \
             ops on one path follow from each other.",
        ),
        Reason::MissingRecord => (
            "A record that is not in the blocks",
            "Put the block of every created and updated record into the commit's CAR.",
        ),
        Reason::BadRecord => (
            "A record that is not well-formed DAG-CBOR",
            "Encode records as one canonical DAG-CBOR map (sorted keys, shortest integers, 64-bit floats if any) within 32 \
             levels, and never store bytes that a client sent unread.",
        ),
        Reason::MissingMstBlock => (
            "A node of the tree that is not in the blocks",
            "Put every new node into the CAR, and those on the way to each op's key and to the keys beside it, which are \
             needed to undo deletes (proposal 0006, operation inversion).",
        ),
        Reason::BadMst => (
            "A tree that breaks the rules of its form",
            "Build nodes by the specification: layer by the leading zeros of the key's SHA-256 in pairs of bits, keys \
             sorted, prefixes compressed fully, no empty nodes; the interop fixtures for the MST help.",
        ),
        Reason::OpMismatch => (
            "An op that the tree contradicts",
            "Make ops from the same write that changed the tree: a created or updated record stands in it with the op's \
             cid, a deleted one no more.",
        ),
        Reason::PrevDataMismatch => (
            "Ops that do not lead back to prevData",
            "Send prevData, the data of the commit before, and list every record that changed with its true prev: undoing \
             the ops on the new tree must give the old root.",
        ),
        Reason::SyncRollback => (
            "A #sync to an older rev",
            "Give the repo a new commit with a rev above the last one that was sent, and announce that; after a backup was \
             restored too.",
        ),
    };
    Advice { meaning, remedy }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_has_texts_of_its_own() {
        let mut seen = BTreeSet::new();
        for reason in Reason::ALL {
            let Advice { meaning, remedy } = advice(reason);
            assert!(seen.insert(meaning) && seen.insert(remedy), "{reason}: said of another too");
            assert!((10..80).contains(&meaning.len()) && !meaning.ends_with('.'), "{reason}: {meaning}");
            assert!((40..320).contains(&remedy.len()), "{reason}: {} characters", remedy.len());
            assert!(remedy.ends_with('.') && !remedy.contains(". "), "{reason}: one sentence: {remedy}");
            assert!(!remedy.contains("  "), "{reason}: {remedy}");
        }
    }
}
