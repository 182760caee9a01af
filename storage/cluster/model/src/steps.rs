/// A step of the protocol, or a part of one, that can be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    // === crawling ===
    /// Only what `raw` has acknowledged moves a host's cursor.
    CursorAfterAck,
    /// A producer whose delivery failed does not go on to the next record.
    GaplessProducer,

    /// A host's new epoch is in its row before a frame of it is sent.
    EpochBeforeFrames,

    // === claim, recover ===
    /// Who is given a lane appends a claim before anything else.
    Claim,
    /// The new owner forgets the states it has in memory from an earlier time.
    FreshCache,
    /// The new owner writes the rows of the valid records before its claim that may be missing.
    Repair,
    /// Who saw a hole claims again, where the lane is still its own.
    ClaimAgain,

    // === judging ===
    /// A frame is a repeat by (epoch, seq), not only by seq within the state's epoch.
    EpochOrder,
    /// What recovery has seen a valid record of is not judged again.
    SettledPositions,
    /// Nor is a command before one of its account of which it has: it changed nothing, and has no record.
    CommandOrder,

    // === rows, commit ===
    /// A row is written when its record's delivery is known.
    DeliveryBeforeRows,
    /// A record that was delivered after a hole changes no row.
    HoleCheck,
    /// A row is written with its record's offset as timestamp, so that the newest wins.
    Timestamps,
    /// What is committed covers only what is in the rows.
    RowsBeforeCommit,
    /// What is committed stays before the first frame that is parked.
    CoverInOrder,
    /// The repair point stays before the first record that settles what is not covered.
    HoldBack,
    /// The claim in force before the repair point is committed with it.
    ClaimInCommit,

    // === sequence ===
    /// The sequencer takes a record only if its claim is the lane's latest before it.
    ClaimCheck,
    /// Only the newest producer's transactions are taken.
    Fencing,
    /// The state is read after those before it are fenced.
    FencingBeforeRead,
    /// The state is written in the transaction of the frames.
    StateInTransaction,
    /// The state has each lane's claim in force.
    ClaimInState,
    /// Who was fenced begins anew, where it is still the leader.
    LeadAgain,
}
