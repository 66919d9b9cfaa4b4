//! Answers that many ask for and that are the same for all of them: made once, kept for a moment.
//!
//! However many pages are open, what they look at costs what one of them costs; and what took long is kept
//! longer, so that looking never takes more than a twentieth of the time.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use crate::environment::Environment;

/// How many times as long as it took to make something it is kept.
const REST: u32 = 20;
/// Longest time that something is kept, however long it took.
const KEPT_MAX: Duration = Duration::from_secs(30);

/// One thing that is kept for a while.
pub(super) struct Cached<T> {
    at_least: Duration,
    kept: Mutex<Option<Kept<T>>>,
}

struct Kept<T> {
    until: Duration,
    value: Arc<T>,
}

impl<T> Cached<T> {
    /// Nothing yet.
    pub(super) fn new(at_least: Duration) -> Self {
        Self {
            at_least,
            kept: Mutex::new(None),
        }
    }

    /// What is kept, or what `make` makes. Those who ask meanwhile wait for it. What can't be made is not
    /// kept.
    pub(super) async fn get<E>(
        &self,
        environment: &dyn Environment,
        make: impl Future<Output = Result<T, E>>,
    ) -> Result<Arc<T>, E> {
        let mut kept = self.kept.lock().await;
        let began = environment.elapsed();
        if let Some(kept) = kept.as_ref().filter(|kept| began < kept.until) {
            return Ok(Arc::clone(&kept.value));
        }
        let value = Arc::new(make.await?);
        let now = environment.elapsed();
        let rest = (now.saturating_sub(began) * REST).min(KEPT_MAX);
        *kept = Some(Kept {
            until: now + rest.max(self.at_least),
            value: Arc::clone(&value),
        });
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Mutex as Plain;

    use futures_util::future::BoxFuture;
    use uuid::Uuid;

    use super::*;
    use crate::id::Timestamp;

    /// A clock that goes when it is told to.
    #[derive(Default)]
    struct Hands(Plain<Duration>);

    impl Hands {
        fn go(&self, time: Duration) {
            *self.0.lock().unwrap() += time;
        }
    }

    impl Environment for Hands {
        fn now(&self) -> Timestamp {
            Timestamp::default().after(*self.0.lock().unwrap())
        }

        fn sleep(&self, _: Duration) -> BoxFuture<'static, ()> {
            Box::pin(std::future::ready(()))
        }

        fn spawn(&self, _: &'static str, _: BoxFuture<'static, ()>) {}

        fn new_id(&self) -> Uuid {
            Uuid::nil()
        }
    }

    #[tokio::test]
    async fn what_is_kept_is_made_once_a_while_and_what_took_long_is_kept_longer() {
        let hands = Hands::default();
        let cached = Cached::new(Duration::from_secs(1));
        let ask = async |value: u32, takes: Duration| {
            let make = async {
                hands.go(takes);
                Ok::<_, Infallible>(value)
            };
            *cached.get(&hands, make).await.unwrap()
        };
        assert_eq!(ask(1, Duration::ZERO).await, 1);
        hands.go(Duration::from_millis(999));
        assert_eq!(ask(2, Duration::ZERO).await, 1);
        hands.go(Duration::from_millis(1));
        assert_eq!(ask(3, Duration::from_millis(500)).await, 3);
        hands.go(Duration::from_secs(9));
        assert_eq!(ask(4, Duration::ZERO).await, 3);
        hands.go(Duration::from_secs(1));
        assert_eq!(ask(5, Duration::ZERO).await, 5);
    }

    #[tokio::test]
    async fn a_failure_is_not_kept() {
        let hands = Hands::default();
        let cached = Cached::new(Duration::from_secs(1));
        assert_eq!(cached.get(&hands, async { Err(()) }).await, Err(()));
        assert_eq!(
            cached.get(&hands, async { Ok::<_, ()>(1) }).await,
            Ok(Arc::new(1))
        );
    }
}
