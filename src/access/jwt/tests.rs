//! JWTs as providers make them, and as attackers do.

use ::ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;
use tempfile::NamedTempFile;

use super::*;
use crate::access::rights::{Reach, Scope};

/// A provider with one key.
struct Provider {
    pair: EcdsaKeyPair,
    random: ::ring::rand::SystemRandom,
}

fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Provider {
    fn new() -> Self {
        let random = ::ring::rand::SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).unwrap();
        Self { pair, random }
    }

    fn jwk(&self, id: &str) -> Value {
        let point = self.pair.public_key().as_ref();
        json!({
            "kty": "EC", "crv": "P-256", "alg": "ES256", "use": "sig", "kid": id,
            "x": encoded(&point[1..33]), "y": encoded(&point[33..]),
        })
    }

    fn signed(&self, header: &Value, claims: &Value) -> String {
        let text = format!(
            "{}.{}",
            encoded(header.to_string()),
            encoded(claims.to_string())
        );
        let signature = self.pair.sign(&self.random, text.as_bytes()).unwrap();
        format!("{text}.{}", encoded(signature))
    }

    fn jwt(&self, change: impl FnOnce(&mut Value, &mut Value)) -> String {
        let mut header = json!({ "alg": "ES256", "kid": "one", "typ": "JWT" });
        let now = jsonwebtoken::get_current_timestamp();
        let mut claims = json!({
            "iss": "https://login.example", "aud": ["other", "backstitch"], "sub": "ann",
            "exp": now + 300, "nbf": now - 5, "scope": "openid sagas:read sagas:start@place-order",
        });
        change(&mut header, &mut claims);
        self.signed(&header, &claims)
    }
}

fn jwks(keys: &[Value]) -> NamedTempFile {
    let file = NamedTempFile::new().unwrap();
    std::fs::write(file.path(), json!({ "keys": keys }).to_string()).unwrap();
    file
}

fn oidc(jwks: &NamedTempFile, claim: &str) -> Oidc {
    Oidc::new(OidcOptions {
        issuer: "https://login.example".to_owned(),
        audience: "backstitch".to_owned(),
        jwks: jwks.path().to_string_lossy().into_owned(),
        claim: claim.to_owned(),
        map: BTreeMap::from([("night-shift".to_owned(), "sagas:operate".parse().unwrap())]),
    })
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(seconds * 1_000_000)
}

#[tokio::test]
async fn a_providers_jwt_opens_what_its_claim_says() {
    let provider = Provider::new();
    let file = jwks(&[provider.jwk("one")]);
    let caller = oidc(&file, "scope")
        .caller(&provider.jwt(|_, _| {}), at(0))
        .await
        .unwrap();
    assert_eq!(caller.name.as_deref(), Some("ann"));
    assert_eq!(
        caller.rights.to_string(),
        "sagas:read sagas:start@place-order"
    );
    let roles = provider.jwt(|_, claims| {
        claims["realm"] = json!({ "roles": ["night-shift", "cook", 7] });
    });
    let caller = oidc(&file, "realm.roles")
        .caller(&roles, at(0))
        .await
        .unwrap();
    assert_eq!(caller.rights.reach(Scope::SagasOperate), Reach::All);
    assert_eq!(caller.rights.reach(Scope::SagasRead), Reach::Nothing);
}

#[tokio::test]
async fn whatever_is_wrong_with_a_jwt_it_opens_nothing() {
    let (provider, other) = (Provider::new(), Provider::new());
    let file = jwks(&[provider.jwk("one")]);
    let oidc = oidc(&file, "scope");
    let now = jsonwebtoken::get_current_timestamp();
    let with = |field: &str, value: Value| provider.jwt(|_, claims| claims[field] = value);
    let without = |field: &str| {
        provider.jwt(|_, claims| {
            claims.as_object_mut().unwrap().remove(field);
        })
    };
    let unsigned = {
        let whole = provider.jwt(|header, _| header["alg"] = json!("none"));
        let (text, _) = whole.rsplit_once('.').unwrap();
        format!("{text}.")
    };
    // The public key as the secret of an HMAC: an old confusion.
    let hmac = provider.jwt(|header, _| header["alg"] = json!("HS256"));
    let mut parts: Vec<String> = provider
        .jwt(|_, _| {})
        .split('.')
        .map(str::to_owned)
        .collect();
    parts[1] = encoded(json!({ "sub": "root", "exp": now + 300 }).to_string());
    for (what, text) in [
        ("none", unsigned),
        ("hmac", hmac),
        ("changed", parts.join(".")),
        ("another's key", other.jwt(|_, _| {})),
        (
            "another algorithm",
            provider.jwt(|header, _| header["alg"] = json!("RS256")),
        ),
        (
            "unknown key",
            provider.jwt(|header, _| header["kid"] = json!("two")),
        ),
        ("expired", with("exp", json!(now - 60))),
        ("not yet", with("nbf", json!(now + 60))),
        ("another issuer", with("iss", json!("https://evil.example"))),
        ("another audience", with("aud", json!("shop"))),
        ("nobody", with("sub", json!(""))),
        ("without a time", without("exp")),
        ("without an audience", without("aud")),
        ("without an issuer", without("iss")),
        ("without a subject", without("sub")),
        ("garbage", "a.b.c".to_owned()),
        ("long", format!("a.b.{}", "c".repeat(JWT_BYTES_MAX))),
    ] {
        let answer = oidc.caller(&text, at(0)).await;
        assert!(
            matches!(answer, Err(Stranger::Invalid(_))),
            "{what}: {answer:?}"
        );
    }
}

#[tokio::test]
async fn a_new_key_is_looked_for_at_most_once_a_minute() {
    let (first, second) = (Provider::new(), Provider::new());
    let file = jwks(&[first.jwk("one")]);
    let oidc = oidc(&file, "scope");
    assert!(oidc.caller(&first.jwt(|_, _| {}), at(0)).await.is_ok());
    let keys = json!({ "keys": [second.jwk("two")] }).to_string();
    std::fs::write(file.path(), keys).unwrap();
    let rotated = second.jwt(|header, _| header["kid"] = json!("two"));
    assert!(oidc.caller(&rotated, at(59)).await.is_err());
    assert!(oidc.caller(&rotated, at(60)).await.is_ok());
    let old = oidc.caller(&first.jwt(|_, _| {}), at(61)).await;
    assert!(matches!(old, Err(Stranger::Invalid(_))), "{old:?}");
}

#[tokio::test]
async fn while_keys_cant_be_read_those_known_go_on() {
    let provider = Provider::new();
    let file = jwks(&[provider.jwk("one")]);
    let oidc = oidc(&file, "scope");
    assert!(oidc.caller(&provider.jwt(|_, _| {}), at(0)).await.is_ok());
    std::fs::write(file.path(), "gone").unwrap();
    let hour = at(KEYS_TIME_MAX.as_secs().cast_signed());
    assert!(oidc.caller(&provider.jwt(|_, _| {}), hour).await.is_ok());
    let fresh = super::tests::oidc(&file, "scope");
    let answer = fresh.caller(&provider.jwt(|_, _| {}), at(0)).await;
    assert!(
        matches!(answer, Err(Stranger::Unavailable(_))),
        "{answer:?}"
    );
    // Whoever comes soon after is told the same, and nobody is asked again for it.
    let keys = json!({ "keys": [provider.jwk("one")] }).to_string();
    std::fs::write(file.path(), keys).unwrap();
    assert!(fresh.caller(&provider.jwt(|_, _| {}), at(4)).await.is_err());
    assert!(fresh.caller(&provider.jwt(|_, _| {}), at(5)).await.is_ok());
}
