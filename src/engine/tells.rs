//! What sagas are told, and what becomes of it if they can't take it.

use super::batch::{Batch, Decided};
use super::rejection::Rejection;
use super::work::{OperateError, Origin, Work};
use crate::id::SagaId;
use crate::saga::Input;
use crate::store::DeadLetter;

impl Batch<'_> {
    pub(super) fn tell(&mut self, work: Work, id: SagaId, input: Input) {
        let told = match self.turn(id, input) {
            // A person's action that is known already is done.
            Ok(()) | Err(Rejection::Nothing) => Ok(()),
            Err(Rejection::Stale) => return self.look_closer(work),
            Err(Rejection::Wrong(wrong)) => {
                if let Origin::Delivery { letter, .. } = &work.origin {
                    let letter = DeadLetter {
                        code: wrong.code,
                        reason: wrong.reason.clone(),
                        ..letter()
                    };
                    self.bury(letter, None);
                }
                Err(OperateError::Refused(wrong))
            }
        };
        self.decided.push(Decided {
            work,
            saga: Some(id),
            answer: None,
            told,
            signalled: None,
        });
    }

    /// Tells a saga of what can't be used, and keeps that, whether the saga still waits for it or not.
    pub(super) fn tell_and_bury(
        &mut self,
        work: Work,
        id: SagaId,
        input: Input,
        letter: DeadLetter,
    ) {
        if let Err(Rejection::Stale) = self.turn(id, input) {
            return self.look_closer(work);
        }
        self.bury(letter, None);
        self.done(work, Some(id), None);
    }

    /// Our copy of a saga may be behind: decides again on what is stored.
    pub(super) fn look_closer(&mut self, work: Work) {
        self.node.be_wary();
        self.again.push(work);
    }
}

#[cfg(test)]
mod tests;
