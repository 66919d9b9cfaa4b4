//! What the API is, for programs (`OpenAPI` 3.1) and as a page for people: both made from the table of
//! endpoints and what is said of each ([`described`](super::described)).

use std::fmt::Write as _;
use std::sync::LazyLock;

use axum::Json;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use utoipa::openapi::path::{OperationBuilder, ParameterBuilder, ParameterIn};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, HttpMethod, InfoBuilder, OpenApi, OpenApiBuilder, Paths,
    Ref, Required, ResponseBuilder,
};

use super::VERSION;
use super::described::{Ask, Description, Takes, description};
use super::guard::Need;
use super::routes::{Endpoint, endpoints};

/// What any endpoint may answer that asks who its caller is.
const REFUSALS: &[(u16, &str)] = &[
    (400, "The request is malformed"),
    (401, "Nobody is signed in"),
    (403, "The caller may not do this"),
    (503, "The node can't do it now; try again"),
];
/// And one that takes a body.
const BODY_REFUSALS: &[(u16, &str)] = &[
    (413, "The body is too large"),
    (415, "The body is not declared as JSON"),
    (422, "The `Idempotency-Key` was used for another request"),
];

/// Made once: whoever may not do anything may ask for them as often as they like.
static DOCUMENT: LazyLock<OpenApi> = LazyLock::new(api);
static PAGE: LazyLock<String> = LazyLock::new(html);

/// `GET /openapi.json`.
pub(super) async fn document() -> Json<&'static OpenApi> {
    Json(&DOCUMENT)
}

/// `GET /docs`: the same for people, without a script.
pub(super) async fn page() -> Response {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, policy),
    ];
    (headers, PAGE.as_str()).into_response()
}

/// Endpoints with what is said of them.
fn described() -> impl Iterator<Item = (Endpoint, &'static Description)> {
    endpoints().into_iter().filter_map(|endpoint| {
        let said = description(endpoint.method.as_str(), endpoint.path)?;
        Some((endpoint, said))
    })
}

fn api() -> OpenApi {
    let mut paths = Paths::new();
    for (endpoint, said) in described() {
        let path = format!("{VERSION}{}", endpoint.path);
        let method = match said.method {
            "POST" => HttpMethod::Post,
            _ => HttpMethod::Get,
        };
        paths.add_path_operation(path, vec![method], operation(&endpoint, said));
    }
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let components = ComponentsBuilder::new()
        .schema("Problem", problem())
        .security_scheme("bearer", bearer)
        .build();
    let info = InfoBuilder::new()
        .title("Backstitch")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Start sagas, look at them, act on them; search, edit and replay dead letters; read back what happened.",
        ))
        .build();
    OpenApiBuilder::new()
        .info(info)
        .paths(paths)
        .components(Some(components))
        .build()
}

fn operation(endpoint: &Endpoint, said: &Description) -> OperationBuilder {
    let mut operation = OperationBuilder::new()
        .summary(Some(said.summary))
        .tag(tag(said.path))
        .operation_id(Some(operation_id(said)));
    for name in in_path(said.path) {
        let parameter = ParameterBuilder::new()
            .name(name)
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .schema(Some(path_schema(name)));
        operation = operation.parameter(parameter);
    }
    for ask in said.query {
        operation = operation.parameter(queried(ask));
    }
    if let Some(takes) = &said.body {
        let content = ContentBuilder::new().schema(Some(body_schema(takes)));
        let body = RequestBodyBuilder::new()
            .content("application/json", content.build())
            .required(Some(Required::True));
        operation = operation
            .request_body(Some(body.build()))
            .parameter(idempotency_key());
    }
    for (status, about) in said.answers {
        let response = if *status < 400 {
            let content = ContentBuilder::new().schema(answer_schema(said));
            ResponseBuilder::new()
                .description(*about)
                .content(answer_type(said), content.build())
                .build()
        } else {
            refusal(about)
        };
        operation = operation.response(status.to_string(), response);
    }
    let known = |status: u16| said.answers.iter().any(|(other, _)| *other == status);
    let more = (endpoint.need != Need::Nothing).then_some(REFUSALS);
    let more_with_body = said.body.is_some().then_some(BODY_REFUSALS);
    let more = more.into_iter().chain(more_with_body).flatten();
    for (status, about) in more.filter(|(status, _)| !known(*status)) {
        operation = operation.response(status.to_string(), refusal(about));
    }
    if said.path == "/readyz" {
        let not_ready = ResponseBuilder::new().description("It does not, and says why");
        operation = operation.response("503", not_ready.build());
    }
    if endpoint.need == Need::Nothing {
        return operation;
    }
    let scopes: [&str; 0] = [];
    operation.security(SecurityRequirement::new("bearer", scopes))
}

fn refusal(about: &str) -> utoipa::openapi::Response {
    let problem = Ref::from_schema_name("Problem");
    let content = ContentBuilder::new().schema(Some(problem)).build();
    ResponseBuilder::new()
        .description(about)
        .content("application/problem+json", content)
        .build()
}

/// A problem, as RFC 9457 has it, with a code of ours.
fn problem() -> Schema {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let object = ObjectBuilder::new()
        .schema_type(Type::Object)
        .property("type", text())
        .property("title", text())
        .property("status", ObjectBuilder::new().schema_type(Type::Integer))
        .property("detail", text())
        .property("code", text().pattern(Some("^BST-[0-9]{4}$")))
        .property("reason", text())
        .required("code")
        .required("reason")
        .build();
    Schema::Object(object)
}

fn queried(ask: &Ask) -> ParameterBuilder {
    let kind = if ask.is_number {
        Type::Integer
    } else {
        Type::String
    };
    ParameterBuilder::new()
        .name(ask.name)
        .parameter_in(ParameterIn::Query)
        .required(Required::False)
        .description(Some(ask.about))
        .schema(Some(ObjectBuilder::new().schema_type(kind)))
}

/// What any request that changes something may bear.
fn idempotency_key() -> ParameterBuilder {
    let text = ObjectBuilder::new().schema_type(Type::String);
    ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(
            "The same request with the same key is carried out once and answered alike, for a day; a signal's id",
        ))
        .schema(Some(text.min_length(Some(1)).max_length(Some(255))))
}

fn path_schema(name: &str) -> ObjectBuilder {
    let text = ObjectBuilder::new().schema_type(Type::String);
    match name {
        "action" => text.enum_values(Some(["cancel", "retry", "skip", "pause", "resume"])),
        "command" => text.enum_values(Some(["pause", "resume", "abort"])),
        _ => text.min_length(Some(1)),
    }
}

fn body_schema(takes: &Takes) -> Schema {
    match takes {
        Takes::Any(about) => Schema::Object(any(about).build()),

        Takes::Fields(needed, fields) => {
            let mut object = ObjectBuilder::new().schema_type(Type::Object);
            for (position, (name, about)) in fields.iter().enumerate() {
                object = object.property(*name, any(about));
                if position < *needed {
                    object = object.required(*name);
                }
            }
            Schema::Object(object.build())
        }
    }
}

/// Any JSON.
fn any(about: &str) -> ObjectBuilder {
    ObjectBuilder::new()
        .schema_type(SchemaType::AnyValue)
        .description(Some(about))
}

fn answer_type(said: &Description) -> &'static str {
    if said.method != "GET" {
        return "application/json";
    }
    match said.path {
        "/metrics" | "/livez" => "text/plain",
        "/docs" => "text/html",
        "/live" | "/sagas/live" | "/sagas/{saga}/live" => "text/event-stream",
        "/dead-letters/export" => "application/x-ndjson",
        _ => "application/json",
    }
}

fn answer_schema(said: &Description) -> Option<Schema> {
    let is_object = answer_type(said) == "application/json";
    let object = ObjectBuilder::new().schema_type(Type::Object);
    is_object.then(|| Schema::Object(object.build()))
}

/// The names in braces.
fn in_path(path: &str) -> impl Iterator<Item = &str> {
    path.split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

/// The first part of a path: what it is about.
fn tag(path: &str) -> &str {
    path.split('/').nth(1).unwrap_or_default()
}

/// Unlike any other's: `post-sagas-saga-action`.
fn operation_id(said: &Description) -> String {
    let path = said.path.replace(['{', '}'], "").replace(['/', '.'], "-");
    format!("{}{path}", said.method.to_lowercase())
}

const STYLE: &str = "
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.5rem; text-transform: capitalize; }
h3 { margin: 1.5rem 0 .25rem; font-size: 1rem; font-weight: 600; overflow-wrap: anywhere; }
code { font-family: ui-monospace, monospace; }
.method { display: inline-block; min-width: 3.2rem; font-weight: 700; }
table { border-collapse: collapse; } td { padding: .1rem 1rem .1rem 0; vertical-align: top; }
p { margin: .25rem 0; }";

fn html() -> String {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>Backstitch: the HTTP API</title><style>{STYLE}</style></head><body><h1>The HTTP API of Backstitch {}</h1><p>Each path begins with <code>{VERSION}</code>; without, it means the same. For programs: <a href=\"openapi.json\">openapi.json</a>. Who may do what: <code>Authorization: Bearer TOKEN</code>; the scope that is needed stands at each.</p>",
        env!("CARGO_PKG_VERSION")
    );
    let mut section = "";
    for (endpoint, said) in described() {
        if tag(said.path) != section {
            section = tag(said.path);
            let _ = write!(page, "<h2>{}</h2>", escaped(&section.replace('-', " ")));
        }
        page += &article(&endpoint, said);
    }
    page + "</body></html>"
}

fn article(endpoint: &Endpoint, said: &Description) -> String {
    let scope = match endpoint.need {
        Need::Nothing => "nothing".to_owned(),
        Need::Scope(scope, _) => format!("<code>{scope}</code>"),
    };
    let mut article = format!(
        "<h3><span class=\"method\">{}</span> <code>{VERSION}{}</code></h3><p>{}. Needs {scope}.</p><table>",
        said.method,
        escaped(said.path),
        marked(said.summary),
    );
    let mut row = |name: &str, about: &str| {
        let _ = write!(
            article,
            "<tr><td><code>{}</code></td><td>{}</td></tr>",
            escaped(name),
            marked(about)
        );
    };
    for ask in said.query {
        row(&format!("?{}", ask.name), ask.about);
    }
    match &said.body {
        Some(Takes::Any(about)) => row("body", about),
        Some(Takes::Fields(needed, fields)) => {
            for (position, (name, about)) in fields.iter().enumerate() {
                let name = if position < *needed {
                    format!("{name} (needed)")
                } else {
                    (*name).to_owned()
                };
                row(&name, about);
            }
        }
        None => {}
    }
    for (status, about) in said.answers {
        row(&status.to_string(), about);
    }
    article + "</table>"
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

/// What stands between backticks, as code.
fn marked(text: &str) -> String {
    let parts = escaped(text);
    let parts = parts.split('`').enumerate().map(|(position, part)| {
        if position % 2 == 1 {
            format!("<code>{part}</code>")
        } else {
            part.to_owned()
        }
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn something_is_said_of_each_endpoint_and_of_nothing_else() {
        let all = endpoints();
        for endpoint in &all {
            let (method, path) = (endpoint.method.as_str(), endpoint.path);
            assert!(description(method, path).is_some(), "{method} {path}");
        }
        let said: Vec<_> = super::super::described::all().collect();
        assert_eq!(said.len(), all.len());
        let ids = said.iter().map(|said| operation_id(said));
        let ids: std::collections::BTreeSet<_> = ids.collect();
        assert_eq!(ids.len(), all.len(), "each id is there once");
    }

    #[test]
    fn the_document_is_openapi_and_has_every_path_with_its_parameters() {
        let document: Value = serde_json::to_value(api()).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        for endpoint in endpoints() {
            let path = format!("{VERSION}{}", endpoint.path);
            let operation = &document["paths"][&path][endpoint.method.as_str().to_lowercase()];
            assert!(operation["responses"].is_object(), "{path}");
            let parameters = operation["parameters"].as_array();
            let named = |name: &str| {
                parameters.is_some_and(|all| {
                    all.iter()
                        .any(|it| it["name"] == name && it["in"] == "path")
                })
            };
            assert!(in_path(endpoint.path).all(named), "{path}: {operation}");
        }
        let page = html();
        assert!(page.contains("sagas:operate") && !page.contains("<script"));
    }
}
