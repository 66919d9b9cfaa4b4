//! A unit of work on its way through a node, and where its acknowledgement goes.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use tokio::sync::oneshot;
use uuid::Uuid;

use super::children::ChildWork;
use super::decode::StartRequest;
use super::room::Space;
use super::signals::{Addressee, SignalAnswer, SignalError, SignalRequest};
use crate::broker::{Acks, DeliveryTag};
use crate::id::SagaId;
use crate::saga::{Input, Starter, Status};
use crate::store::{DeadLetter, SagaKey};

/// What is to be done.
#[derive(Debug, Clone)]
pub(super) enum Job {
    /// Start a saga. `key_taken`: an attempt to store it found the key in use.
    Start {
        request: StartRequest,
        key_taken: bool,
    },
    /// Start what a saga that has given up its key names.
    Succeed { replaces: SagaId },
    /// What a saga wants of one that it runs.
    Child(Box<ChildWork>),
    /// Tell a saga something.
    Tell { saga: SagaId, input: Input },
    /// Tell a saga that an answer to it is worth nothing, and keep that.
    TellAndBury {
        saga: SagaId,
        input: Input,
        letter: Box<DeadLetter>,
    },
    /// Tell a saga, named by its id or key, of something from outside.
    Signal(Arc<SignalRequest>),
    /// Leave it to a node of a newer release: what it is about, and why.
    Leave { about: String, why: String },
    /// Keep a message nobody can handle, and tell the one who wanted a saga, if any.
    Bury {
        letter: Box<DeadLetter>,
        starter: Option<Starter>,
    },
}

impl Job {
    /// The saga it is about, if it names one by its id; what a signal is for, its request says.
    pub(super) fn saga(&self) -> Option<SagaId> {
        match self {
            Self::Tell { saga, .. }
            | Self::TellAndBury { saga, .. }
            | Self::Succeed { replaces: saga } => Some(*saga),
            Self::Child(wanted) => Some(wanted.child),
            Self::Start { .. } | Self::Signal(_) | Self::Leave { .. } | Self::Bury { .. } => None,
        }
    }

    /// What it must not overtake has the same number: works about the same saga, or key.
    pub(super) fn lane(&self) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        match self {
            Self::Tell { saga, .. }
            | Self::TellAndBury { saga, .. }
            | Self::Succeed { replaces: saga } => saga.hash(&mut hasher),
            Self::Child(wanted) => wanted.child.hash(&mut hasher),
            Self::Start { request, .. } => request.key.hash(&mut hasher),
            Self::Signal(request) => match &request.to {
                Addressee::Saga(saga) => saga.hash(&mut hasher),
                // Behind the start of this very saga, if that is on its way.
                Addressee::Key(key) => key.key.hash(&mut hasher),
            },
            Self::Leave { about, .. } => about.hash(&mut hasher),
            Self::Bury { letter, .. } => letter.id.hash(&mut hasher),
        }
        hasher.finish()
    }

    /// Who wants to hear of it, should it fail.
    pub(super) fn starter(&self) -> Option<Starter> {
        match self {
            Self::Start { request, .. } => request.starter.clone(),
            Self::Bury { starter, .. } => starter.clone(),
            _ => None,
        }
    }

    /// The key whose saga must be looked up first.
    pub(super) fn key(&self) -> Option<SagaKey> {
        match self {
            Self::Start {
                request,
                key_taken: true,
            } => Some(request.saga_key()),
            Self::Signal(request) => match &request.to {
                Addressee::Key(key) => Some(key.clone()),
                Addressee::Saga(_) => None,
            },
            Self::Start { .. }
            | Self::Succeed { .. }
            | Self::Child(_)
            | Self::Tell { .. }
            | Self::TellAndBury { .. }
            | Self::Leave { .. }
            | Self::Bury { .. } => None,
        }
    }
}

/// A job and who waits for it to be committed.
pub(super) struct Work {
    pub(super) job: Job,
    pub(super) origin: Origin,
}

/// Who waits.
pub(super) enum Origin {
    /// The broker, for an acknowledgement. The delivery is kept until then: if it turns out that
    /// it can't be handled, it becomes a dead letter.
    Delivery {
        acks: Arc<dyn Acks>,
        tag: DeliveryTag,
        letter: Arc<dyn Fn() -> DeadLetter + Send + Sync>,
        space: Space,
    },
    /// Somebody in this process (HTTP), for the answer.
    Caller(Option<oneshot::Sender<Result<StartAnswer, StartError>>>),
    /// A person in this process (HTTP), who told a saga something.
    Operator(oneshot::Sender<Result<(), OperateError>>),
    /// Somebody in this process (HTTP), who sent a saga a signal.
    Signaller(oneshot::Sender<Result<SignalAnswer, SignalError>>),
    /// An outbox row whose message no queue took; it goes once this is committed.
    Outbox(Uuid),
    /// Nobody: if it is lost, the clock brings it again.
    Timer,
}

/// What became of a start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartAnswer {
    /// It began.
    Started(SagaId),
    /// A saga with this key and the same input had begun before; nothing new happens.
    Existing(SagaId, Status),
    /// It begins once the saga that holds its key has ended.
    Restarting {
        /// The id that it will have.
        saga: SagaId,
        /// The saga that holds the key.
        replaces: SagaId,
        /// Where that one stands.
        status: Status,
    },
}

/// Why a saga was not started.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The request is wrong.
    #[error(transparent)]
    Refused(#[from] super::decode::Undecodable),
    /// The key belongs to a saga with another input.
    #[error("saga {saga} has this key with another input; use another key, or the same input")]
    KeyConflict {
        /// The saga that holds the key.
        saga: SagaId,
    },
    /// The key belongs to a saga that another start began, and the definition wants only one.
    #[error(
        "saga {saga} has this key already, and this saga's definition refuses a second start (`conflict: reject`); use another key"
    )]
    KeyHeld {
        /// The saga that holds the key.
        saga: SagaId,
    },
    /// The node is stopping, or its database refuses.
    #[error("this node can't start sagas now: {0}")]
    Unavailable(String),
}

/// Why a person's action was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OperateError {
    /// There is no such saga, or it does not stand where that is possible.
    #[error(transparent)]
    Refused(#[from] super::decode::Undecodable),
    /// The node is stopping, or its database refuses.
    #[error("this node can't change sagas now: {0}")]
    Unavailable(String),
}
