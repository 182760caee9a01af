//! Where the two differ, and why. What is not named here is a fault of one of them.

use std::collections::HashSet;

use atproto::{
    car::Car,
    commit::Commit,
    event::{self, Action, CommitEvent, Event},
    mst::EMPTY,
};
use validator::verdict::{Reason, Refusal};

use crate::{indigo::Objection, ours::Account};

/// A difference that is meant, on either side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Difference {
    SeveralOpsOnOnePath,
    NodeThatNobodyNeeds,
    UnknownFieldInCommit,
    Time,
    EmptyTop,
    SubtreeForRoot,
    FirstCommit,
    CommitField,
    OpWithoutPrev,
    RecordNotRead,
    Limits,
    LooseForm,
}

impl Difference {
    /// Who does what, and why ours stays as it is.
    pub(crate) fn why(self) -> &'static str {
        match self {
            Difference::SeveralOpsOnOnePath => "they refuse two ops on one path; hosts send them for a batch of writes",
            Difference::NodeThatNobodyNeeds => {
                "they want the root's node of a commit without ops, or of an empty tree; the reference host sends none"
            }
            Difference::UnknownFieldInCommit => {
                "they encode the commit anew to verify it, and lose what they don't know"
            }
            Difference::Time => "they check the event's time, which is informal",
            Difference::EmptyTop => {
                "they undo creates before deletes in some orders, and then leave an empty node of another layer on top"
            }
            Difference::SubtreeForRoot => {
                "they take a subtree that is not there for the root before; it may be no root"
            }
            Difference::FirstCommit => {
                "they do not invert the first commit of an unknown account; ours is judged alone"
            }
            Difference::CommitField => "they do not compare the event's commit with the CAR's root",
            Difference::OpWithoutPrev => {
                "they take an update or a delete without prev for one of old, and invert nothing"
            }
            Difference::RecordNotRead => "they do not read records; ours must be DAG-CBOR",
            Difference::Limits => "they read payloads of any size and depth",
            Difference::LooseForm => "they read CBOR in other forms than the one that is canonical",
        }
    }
}

/// The name of a disagreement, if it has one.
pub(crate) fn explain(
    account: &Account,
    frame: &[u8],
    ours: &Result<(), Refusal>,
    theirs: &Result<(), Objection>,
) -> Option<Difference> {
    let commit = match event::parse(frame) {
        Ok(Event::Commit(commit)) => Some(commit),
        Ok(Event::Sync(_) | Event::Identity(_) | Event::Account(_)) | Err(_) => None,
    };
    match (ours, theirs) {
        (Ok(()), Err(objection)) => too_strict(account, &commit?, objection),
        (Err(refusal), Ok(())) => too_lax(account, commit.as_ref(), refusal),
        (Ok(()), Ok(())) | (Err(_), Err(_)) => None,
    }
}

/// What they refuse and we pass on.
fn too_strict(account: &Account, commit: &CommitEvent<'_>, objection: &Objection) -> Option<Difference> {
    let car = Car::parse(commit.blocks).ok()?;
    let block = Commit::parse(car.get(&car.root())?).ok()?;
    let paths: HashSet<&str> = commit.ops.iter().map(|op| op.path).collect();
    if paths.len() < commit.ops.len() {
        return Some(Difference::SeveralOpsOnOnePath);
    }
    let needs_no_node = commit.ops.is_empty() || block.data == EMPTY;
    if needs_no_node && car.get(&block.data).is_none() && objection.error.starts_with("reading MST from CAR file") {
        return Some(Difference::NodeThatNobodyNeeds);
    }
    // did, rev, sig, data, prev, version.
    let has_more_fields = car.get(&car.root()).is_some_and(|block| block.first() > Some(&0xa6));
    if objection.stage == "signature" && has_more_fields {
        return Some(Difference::UnknownFieldInCommit);
    }
    let is_what_was = account.data().is_some() && commit.prev_data == account.data();
    if objection.error == "inverted tree root didn't match prevData" && is_what_was {
        return Some(Difference::EmptyTop);
    }
    objection.error.starts_with("Datetime syntax").then_some(Difference::Time)
}

/// What they pass on and we refuse.
fn too_lax(account: &Account, commit: Option<&CommitEvent<'_>>, refusal: &Refusal) -> Option<Difference> {
    let came = |words: &[&str]| words.iter().any(|words| refusal.came.contains(words));
    match refusal.reason {
        Reason::FrameTooLarge => return Some(Difference::Limits),
        Reason::BadHeader | Reason::BadPayload | Reason::BadCommit if came(&["nested too deeply"]) => {
            return Some(Difference::Limits);
        }
        Reason::BadPayload | Reason::BadCommit => return Some(Difference::LooseForm),
        _ => {}
    }
    let commit = commit?;
    if account.data().is_none() && commit.prev_data.is_none() {
        return Some(Difference::FirstCommit);
    }
    match refusal.reason {
        Reason::MissingMstBlock => {
            let prev_data = commit.prev_data?.to_string();
            came(&[&prev_data]).then_some(Difference::SubtreeForRoot)
        }
        Reason::BadRecord => Some(Difference::RecordNotRead),
        Reason::RootMismatch => {
            let root = Car::parse(commit.blocks).ok()?.root();
            (root != commit.commit).then_some(Difference::CommitField)
        }
        Reason::BadOp => {
            let has_no_prev = commit.ops.iter().any(|op| match op.action {
                Action::Create => false,
                Action::Update | Action::Delete => op.prev.is_none(),
            });
            has_no_prev.then_some(Difference::OpWithoutPrev)
        }
        Reason::BadMst => {
            came(&["as long as it can be", "is a map of", "shortest form"]).then_some(Difference::LooseForm)
        }
        _ => None,
    }
}
