//! Who is let in, as whom.

use uuid::Uuid;

use super::rights::{Reach, Rights, Scope};
use super::*;
use crate::environment::TokioEnvironment;
use crate::store::dead_letters::Actor;
use crate::store::memory::MemoryStore;

struct Bundle {
    store: MemoryStore,
    clock: Arc<Clock>,
}

/// A clock that is set by hand.
#[derive(Default)]
struct Clock(Mutex<Duration>);

impl Environment for Clock {
    fn now(&self) -> Timestamp {
        Timestamp::default().after(*self.0.lock().unwrap())
    }

    fn sleep(&self, duration: Duration) -> futures_util::future::BoxFuture<'static, ()> {
        TokioEnvironment.sleep(duration)
    }

    fn spawn(&self, name: &'static str, task: futures_util::future::BoxFuture<'static, ()>) {
        TokioEnvironment.spawn(name, task);
    }

    fn new_id(&self) -> Uuid {
        TokioEnvironment.new_id()
    }
}

impl Bundle {
    fn new() -> Self {
        let clock = Arc::new(Clock(Mutex::new(Duration::from_secs(1_000))));
        let store = MemoryStore::new();
        Self { store, clock }
    }

    fn access(&self, file: Option<&str>) -> Access {
        let file = file.map(|text| AccessFile::parse(text).unwrap());
        let clock: Arc<dyn Environment> = Arc::<Clock>::clone(&self.clock);
        Access::new(clock, Arc::new(self.store.clone()), file)
    }

    fn pass(&self, time: Duration) {
        *self.clock.0.lock().unwrap() += time;
    }

    fn actor(&self) -> Actor {
        Actor {
            by: "ann".to_owned(),
            why: "test".to_owned(),
            at: self.clock.now(),
        }
    }

    /// A token, and its id.
    async fn token(&self, rights: &str, life: Option<Duration>) -> (String, Uuid) {
        let secret = token::fresh().unwrap();
        let row = TokenRow {
            id: self.clock.new_id(),
            name: "night-shift".to_owned(),
            hash: token::hashed(&secret),
            rights: rights.to_owned(),
            made_at: self.clock.now(),
            expires_at: life.map(|life| self.clock.now().after(life)),
            revoked_at: None,
            used_at: None,
        };
        self.store.put_token(&row, &self.actor()).await.unwrap();
        (secret, row.id)
    }
}

fn bearer(text: &str) -> Evidence<'_> {
    Evidence {
        bearer: Some(text),
        certificate: None,
    }
}

fn is_refused(answer: &Result<Caller, Stranger>, word: &str) -> bool {
    matches!(answer, Err(Stranger::Invalid(why)) if why.contains(word))
}

#[tokio::test]
async fn until_the_first_token_is_made_everybody_may_do_everything() {
    let bundle = Bundle::new();
    let access = bundle.access(None);
    let anyone = access.caller(Evidence::default()).await.unwrap();
    assert_eq!(anyone, Caller::anyone());
    let (secret, id) = bundle.token("sagas:read", None).await;
    bundle.pass(TOKEN_CACHE_TIME);
    let nobody = access.caller(Evidence::default()).await;
    assert!(matches!(nobody, Err(Stranger::Nothing)));
    let caller = access.caller(bearer(&secret)).await.unwrap();
    assert_eq!(caller.name.as_deref(), Some("night-shift"));
    assert_eq!(caller.rights.reach(Scope::SagasRead), Reach::All);
    assert_eq!(caller.rights.reach(Scope::SagasStart), Reach::Nothing);
    bundle
        .store
        .revoke_token(id, &bundle.actor())
        .await
        .unwrap();
    bundle.pass(TOKEN_CACHE_TIME);
    let revoked = access.caller(bearer(&secret)).await;
    assert!(is_refused(&revoked, "revoked"), "{revoked:?}");
    let nobody = access.caller(Evidence::default()).await;
    assert!(matches!(nobody, Err(Stranger::Nothing)), "stays locked");
    let open = bundle.access(None).open_to_all();
    assert_eq!(
        open.caller(Evidence::default()).await.unwrap(),
        Caller::anyone()
    );
}

/// A database that can go away.
struct Flaky {
    store: MemoryStore,
    away: Arc<std::sync::atomic::AtomicBool>,
}

impl Flaky {
    fn there(&self) -> Result<&MemoryStore, StoreError> {
        if self.away.load(std::sync::atomic::Ordering::Relaxed) {
            return Err(StoreError::Unavailable("it is away".into()));
        }
        Ok(&self.store)
    }
}

#[async_trait::async_trait]
impl TokenStore for Flaky {
    async fn put_token(&self, row: &TokenRow, actor: &Actor) -> Result<(), StoreError> {
        self.there()?.put_token(row, actor).await
    }

    async fn token_by_hash(&self, hash: &Hashed) -> Result<Option<TokenRow>, StoreError> {
        self.there()?.token_by_hash(hash).await
    }

    async fn tokens(&self) -> Result<Vec<TokenRow>, StoreError> {
        self.there()?.tokens().await
    }

    async fn any_token(&self) -> Result<bool, StoreError> {
        self.there()?.any_token().await
    }

    async fn revoke_token(&self, id: Uuid, actor: &Actor) -> Result<bool, StoreError> {
        self.there()?.revoke_token(id, actor).await
    }

    async fn mark_token_used(&self, id: Uuid, at: Timestamp) -> Result<(), StoreError> {
        self.there()?.mark_token_used(id, at).await
    }
}

#[tokio::test]
async fn while_the_database_is_away_what_was_known_holds_for_some_minutes() {
    let bundle = Bundle::new();
    let away = Arc::new(std::sync::atomic::AtomicBool::default());
    let access = || {
        let clock: Arc<dyn Environment> = Arc::<Clock>::clone(&bundle.clock);
        let store = bundle.store.clone();
        let away = Arc::clone(&away);
        Access::new(clock, Arc::new(Flaky { store, away }), None)
    };
    let is_away = |is: bool| away.store(is, std::sync::atomic::Ordering::Relaxed);
    let open = access();
    open.caller(Evidence::default()).await.unwrap();
    is_away(true);
    bundle.pass(TOKEN_CACHE_TIME);
    let anyone = open.caller(Evidence::default()).await;
    assert_eq!(anyone.unwrap(), Caller::anyone());
    bundle.pass(OUTAGE_TIME_MAX);
    let too_long = open.caller(Evidence::default()).await;
    assert!(matches!(too_long, Err(Stranger::Unavailable(why)) if why.contains("away")));

    is_away(false);
    let (secret, _) = bundle.token("sagas:read", None).await;
    let locked = access();
    assert!(locked.caller(bearer(&secret)).await.is_ok());
    is_away(true);
    bundle.pass(TOKEN_CACHE_TIME);
    assert!(locked.caller(bearer(&secret)).await.is_ok());
    let unknown = locked.caller(bearer("bst_x")).await;
    assert!(
        matches!(unknown, Err(Stranger::Unavailable(_))),
        "{unknown:?}"
    );
    bundle.pass(OUTAGE_TIME_MAX);
    let too_long = locked.caller(bearer(&secret)).await;
    assert!(matches!(too_long, Err(Stranger::Unavailable(_))));
    is_away(false);
    // At once again, and not before a pause is over.
    assert!(locked.caller(bearer(&secret)).await.is_err());
    bundle.pass(PAUSE_AFTER_FAILURE);
    assert!(locked.caller(bearer(&secret)).await.is_ok());
}

#[tokio::test]
async fn a_token_is_good_until_it_expires_and_no_other_text_is() {
    let bundle = Bundle::new();
    let life = Duration::from_mins(1);
    let (secret, _) = bundle.token("admin", Some(life)).await;
    let access = bundle.access(None);
    assert!(access.caller(bearer(&secret)).await.is_ok());
    for wrong in [
        "",
        "bst_",
        &secret[..secret.len() - 1],
        &format!("{secret}A"),
    ] {
        let answer = access.caller(bearer(wrong)).await;
        assert!(is_refused(&answer, "no such token"), "{wrong}: {answer:?}");
    }
    bundle.pass(life);
    let answer = access.caller(bearer(&secret)).await;
    assert!(is_refused(&answer, "expired"), "{answer:?}");
}

#[tokio::test]
async fn when_a_token_was_used_is_kept_about_once_a_minute() {
    let bundle = Bundle::new();
    let (secret, _) = bundle.token("admin", None).await;
    let access = bundle.access(None);
    let used = async || bundle.store.tokens().await.unwrap()[0].used_at;
    access.caller(bearer(&secret)).await.unwrap();
    let first = used().await.unwrap();
    bundle.pass(USED_EVERY / 2);
    access.caller(bearer(&secret)).await.unwrap();
    assert_eq!(used().await, Some(first));
    bundle.pass(USED_EVERY / 2);
    access.caller(bearer(&secret)).await.unwrap();
    assert_eq!(used().await, Some(bundle.clock.now()));
}

#[tokio::test]
async fn a_certificate_opens_what_the_rule_for_its_name_says() {
    let bundle = Bundle::new();
    let file = "certificates:\n  - name: starter.example\n    scopes: [sagas:start@place-order]\n";
    let access = bundle.access(Some(file));
    let der = |name: &str| {
        let certified = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        certified.cert.der().to_vec()
    };
    let with = async |der: &[u8]| {
        let evidence = Evidence {
            bearer: None,
            certificate: Some(der),
        };
        access.caller(evidence).await
    };
    let caller = with(&der("starter.example")).await.unwrap();
    assert_eq!(caller.name.as_deref(), Some("starter.example"));
    assert!(caller.rights.reach(Scope::SagasStart).holds("place-order"));
    let other = with(&der("other.example")).await;
    assert!(is_refused(&other, "no rule"), "{other:?}");
    assert!(is_refused(&with(b"garbage").await, "no rule"));
    let nobody = access.caller(Evidence::default()).await;
    assert!(matches!(nobody, Err(Stranger::Nothing)), "a file locks");
}

#[test]
fn whoever_is_signed_in_stands_there_and_for_whom_they_act() {
    let signed = Caller {
        name: Some("night-shift".to_owned()),
        rights: Rights::everything(),
    };
    let author = |said| signed.author(said).unwrap();
    assert_eq!(author(None), "night-shift");
    assert_eq!(author(Some("night-shift")), "night-shift");
    assert_eq!(author(Some("ann")), "night-shift (on behalf of ann)");
    assert_eq!(Caller::anyone().author(Some("ann")).as_deref(), Some("ann"));
    assert_eq!(Caller::anyone().author(None), None);
}
