//! Known bugs, for tests of the tests.

/// A known bug of the core or the engine, for [`Sabotage`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[doc(hidden)]
pub enum PlantedBug {
    /// Roll-back leaves out steps whose outcome nobody knows.
    ForgetUnknown,
    /// The engine acknowledges before it commits.
    AckBeforeCommit,
    /// A start with this key ends in a panic.
    PanicOver(&'static str),
    /// A saga that another one runs does not wait for that one at its pivot.
    RushChildren,
    /// The pivot is passed although a reservation has lapsed, or the deadline has passed.
    ConfirmLapsed,
    /// The payload of a step is computed before anybody asks whether the step runs.
    RenderSkipped,
    /// A node goes by its own clock.
    OwnClock,
    /// A payload may have any size.
    AnyPayload,
    /// What a decision has no room for is forgotten.
    ForgetLeftOff,
    /// Dead letters with the same message id and body have the same id, whichever delivery it was.
    ReuseLetterIds,
    /// The engine acknowledges a dead letter without storing it.
    LoseLetters,
    /// What a store is asked is waited for without a limit.
    WaitForEver,
    /// A command that was not sent yet counts as not answered.
    TimeOutUnsent,
    /// What a newer release has written is read as far as it happens to be understood.
    IgnoreFormats,
}

/// Known bugs, switched on to prove that the simulator catches them; all off otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[doc(hidden)]
pub struct Sabotage(Option<PlantedBug>);

impl Sabotage {
    /// With this bug.
    pub const fn with(flaw: PlantedBug) -> Self {
        Self(Some(flaw))
    }

    /// The bug, if any.
    pub fn flaw(self) -> Option<PlantedBug> {
        self.0
    }

    /// Whether the code should be wrong in this way.
    pub fn has(self, flaw: PlantedBug) -> bool {
        self.0 == Some(flaw)
    }
}
