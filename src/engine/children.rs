//! Sub-sagas in a batch: what a saga wants of one that it runs.
//!
//! Such commands come through the start queue like any start, but are sealed, name their child by
//! an id that is derived from the parent's, and may come more than once and in any order. So each
//! is decided on the child as it stands, and answered whether it changed anything or not.
//!
//! A reserve that can't be run (a taken key, an input that does not fit) and a compensate for what
//! never began leave a saga that was born compensated. It makes the answer last: a copy of the
//! reserve that is still on its way is refused, whatever has become of the reason since. It takes
//! no business key, for it has done no business.
//!
//! Deliberately absent: what a child does next (`saga/decide/child.rs`), and retries (the parent's).

use std::sync::Arc;

use serde_json::Value;

use super::batch::Batch;
use super::cache::Open;
use super::catalogue::Catalogue;
use super::decode::{StartRequest, Undecodable, check_start, json_body};
use super::encode::child_reply;
use super::found::Found;
use super::rejection::Rejection;
use super::work::{StartAnswer, Work};
use crate::definition::{Definition, SUB_SAGAS_DEEP_MAX};
use crate::error::code;
use crate::id::{Phase, SagaId};
use crate::message::child::ChildCommand;
use crate::message::correlation::{Correlation, Secret};
use crate::message::{Message, Outcome};
use crate::saga::journal::GENESIS;
use crate::saga::{ChildAnswer, Input, Parent, ParentOrder, Pass, Saga, Status, answer_to_parent};
use crate::store::{Hash, SagaHead};

/// What a saga wants of one that it runs.
#[derive(Debug, Clone)]
pub(super) struct ChildWork {
    /// The saga that is run.
    pub(super) child: SagaId,
    /// Its definition's name.
    pub(super) name: String,
    /// Who wants it.
    parent: Parent,
    /// What.
    pub(super) wish: Wish,
    /// An attempt to store it found its key in use.
    pub(super) key_taken: bool,
}

/// What a saga wants of one that it runs: the commands of the block.
#[derive(Debug, Clone)]
pub(super) enum Wish {
    /// Run up to the pivot; or why it can't be run.
    Reserve(Box<Result<StartRequest, String>>),
    /// Pass the pivot and complete.
    Confirm,
    /// Roll back.
    Compensate,
}

impl ChildWork {
    /// Whether a newer definition might do what those that are known here can't.
    pub(super) fn hangs_on_definitions(&self, catalogue: &Catalogue) -> bool {
        match &self.wish {
            Wish::Reserve(request) => request.is_err(),
            Wish::Confirm | Wish::Compensate => catalogue.newest(&self.name).is_none(),
        }
    }
}

impl Wish {
    fn phase(&self) -> Phase {
        match self {
            Self::Reserve(_) => Phase::Reserve,
            Self::Confirm => Phase::Confirm,
            Self::Compensate => Phase::Compensate,
        }
    }
}

/// Reads a message from the start queue that says that it is for a sub-saga.
pub(super) fn decode_child(
    message: &Message,
    secret: &Secret,
    catalogue: &Catalogue,
) -> Result<ChildWork, Undecodable> {
    let command = ChildCommand::verify(message, secret).ok_or_else(|| {
        Undecodable::new(
            code::CORRELATION_FORGED,
            "a command to a sub-saga whose seal was not issued by this orchestrator; to start a saga, leave the header `child-seal` out",
        )
    })?;
    let ChildCommand {
        name,
        depth,
        correlation: Correlation { saga, step, phase },
    } = command;
    let child = saga.of_child(&step);
    let wish = match phase {
        Phase::Reserve | Phase::Action => {
            Wish::Reserve(Box::new(read_start(&name, depth, message, catalogue)))
        }
        Phase::Confirm => Wish::Confirm,
        Phase::Compensate => Wish::Compensate,
    };
    Ok(ChildWork {
        child,
        name,
        parent: Parent { saga, step, depth },
        wish,
        key_taken: false,
    })
}

fn read_start(
    name: &str,
    depth: u32,
    message: &Message,
    catalogue: &Catalogue,
) -> Result<StartRequest, String> {
    // Load checks that; but the definitions may have changed since the outermost one began.
    if depth as usize > SUB_SAGAS_DEEP_MAX {
        return Err(format!(
            "sagas run one another deeper than {SUB_SAGAS_DEEP_MAX}"
        ));
    }
    json_body(message)
        .and_then(|input| check_start(catalogue, name, input, None))
        .map_err(|wrong| wrong.reason)
}

impl Batch<'_> {
    pub(super) fn decide_child(&mut self, work: Work, wanted: &ChildWork) {
        let child = wanted.child;
        if self.is_there(child) {
            let order = match wanted.wish {
                Wish::Confirm => ParentOrder::Confirm,
                Wish::Compensate => ParentOrder::Compensate {
                    parent: wanted.parent.clone(),
                },
                // What it began with stands in its journal.
                Wish::Reserve(_) => ParentOrder::Reserve {
                    parent: wanted.parent.clone(),
                    input: Arc::default(),
                    refused: None,
                },
            };
            self.obey(work, wanted, order);
            return;
        }
        let Some(definition) = self.node.catalogue.newest(&wanted.name) else {
            let why = format!("no saga is called `{}` here", wanted.name);
            return self.answer_for(work, wanted, Outcome::Failed, why);
        };
        match &wanted.wish {
            Wish::Reserve(request) => match request.as_ref() {
                Ok(request) if !wanted.key_taken => self.begin(work, wanted, request),
                Ok(StartRequest { input, key, .. }) => {
                    let why = format!("a saga `{}` with key `{key}` is there already", wanted.name);
                    self.refuse_to_begin(work, wanted, &definition, Arc::clone(input), why);
                }
                Err(why) => {
                    let why = why.clone();
                    self.refuse_to_begin(work, wanted, &definition, Arc::default(), why);
                }
            },
            Wish::Compensate => {
                let parent = wanted.parent.clone();
                self.add_stillborn(child, &definition);
                self.obey(work, wanted, ParentOrder::Compensate { parent });
            }
            // What was confirmed was there; to try again would not bring it back.
            Wish::Confirm => {
                let why = format!("there is no saga {child}; it may have been deleted");
                self.answer_for(work, wanted, Outcome::Rejected, why);
            }
        }
    }

    fn begin(&mut self, work: Work, wanted: &ChildWork, request: &StartRequest) {
        let key = request.saga_key();
        // Two starts of one key in one batch: the second one waits until the first is stored.
        if self.starting.contains_key(&key) {
            self.again.push(work);
            return;
        }
        self.starting.insert(key, wanted.child);
        let (definition, hash) = (&request.definition, request.input_hash);
        self.add_child(wanted.child, definition, &request.key, hash);
        let order = ParentOrder::Reserve {
            parent: wanted.parent.clone(),
            input: Arc::clone(&request.input),
            refused: None,
        };
        self.obey(work, wanted, order);
    }

    fn refuse_to_begin(
        &mut self,
        work: Work,
        wanted: &ChildWork,
        definition: &Arc<Definition>,
        input: Arc<Value>,
        why: String,
    ) {
        self.add_stillborn(wanted.child, definition);
        let order = ParentOrder::Reserve {
            parent: wanted.parent.clone(),
            input,
            refused: Some(why),
        };
        self.obey(work, wanted, order);
    }

    /// It can't be begun, as the attempt has shown.
    fn never_begin(&mut self, work: Work, wanted: &ChildWork, why: String) {
        if let Wish::Reserve(request) = &wanted.wish
            && let Ok(request) = request.as_ref()
        {
            self.unbegin(wanted.child, &request.saga_key());
            self.refuse_to_begin(work, wanted, &request.definition, Arc::default(), why);
        } else {
            self.answer_for(work, wanted, Outcome::Failed, why);
        }
    }

    fn is_there(&self, child: SagaId) -> bool {
        let unreadable = matches!(self.found.get(&child), Some(Found::Unreadable { .. }));
        unreadable || self.saga(child).is_some()
    }

    fn add_stillborn(&mut self, child: SagaId, definition: &Arc<Definition>) {
        self.add_child(child, definition, &child.to_string(), Hash::default());
    }

    fn add_child(&mut self, id: SagaId, definition: &Arc<Definition>, key: &str, input_hash: Hash) {
        let head = SagaHead {
            id,
            name: definition.name.clone(),
            version: definition.version,
            key: key.to_owned(),
            input_hash,
            status: Status::Running,
            reason: None,
            revision: 0,
            head_hash: GENESIS,
            started_at: self.now,
            updated_at: self.now,
            ended_at: None,
            wake_at: None,
            parent: None,
            awaits: None,
            cause: None,
            superseded: false,
        };
        let open = Open {
            saga: Saga::new(id, &definition.name, key, self.now),
            head,
            definition: Arc::clone(definition),
            tail: 0,
            format: 1,
            fresh: true,
        };
        self.found.insert(id, Found::Open(Box::new(open)));
    }

    /// Has the child decide, or answer again.
    fn obey(&mut self, work: Work, wanted: &ChildWork, order: ParentOrder) {
        let phase = wanted.wish.phase();
        let known = self.saga(wanted.child);
        let is_new = known.is_some_and(|saga| saga.pass == Pass::New);
        match self.turn(wanted.child, Input::Parent(order)) {
            Ok(()) => {
                let answer = is_new.then_some(Ok(StartAnswer::Started(wanted.child)));
                self.done(work, Some(wanted.child), answer);
            }
            Err(Rejection::Nothing) => {
                let saga = self.saga(wanted.child);
                if let Some(answer) = saga.and_then(|saga| answer_to_parent(saga, phase)) {
                    self.reply_to_parent(wanted, answer);
                }
                self.done(work, Some(wanted.child), None);
            }
            Err(Rejection::Stale) => self.look_closer(work),
            Err(Rejection::Wrong(wrong)) if wrong.code == code::SAGA_TOO_LARGE => {
                self.never_begin(work, wanted, wrong.reason);
            }
            Err(Rejection::Wrong(wrong)) => {
                self.answer_for(work, wanted, Outcome::Failed, wrong.to_string());
            }
        }
    }

    /// Answers in the place of a child that is not there or can't be read.
    fn answer_for(&mut self, work: Work, wanted: &ChildWork, outcome: Outcome, why: String) {
        let answer = ChildAnswer {
            phase: wanted.wish.phase(),
            outcome,
            reason: Some(why),
            body: Arc::new(Value::Null),
        };
        self.reply_to_parent(wanted, answer);
        self.done(work, Some(wanted.child), None);
    }

    fn reply_to_parent(&mut self, wanted: &ChildWork, answer: ChildAnswer) {
        let secret = &self.node.secret;
        let (to, message) = child_reply(secret, wanted.child, &wanted.parent, answer, self.now);
        let row = self.node.outbox_row(to, message, self.now);
        self.add_message(wanted.child, row);
    }
}
