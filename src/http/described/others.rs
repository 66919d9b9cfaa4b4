//! Endpoints about aggregates, dead letters and the node itself, in words.

use super::{Ask, Description, LIMIT, Takes, WHO, WHY, get, number, post, text};

const LETTERS: &[Ask] = &[
    text("queue", "Of this queue"),
    text("type", "With this `type`"),
    text("message_id", "With this message id"),
    text("fingerprint", "Of this group"),
    text("saga", "About this saga"),
    text("status", "`open`, `replayed`, `discarded`"),
    text("since", "Recorded at this time or later"),
    text("until", "Recorded before this time"),
    text("reason", "Whose reason has this text"),
    text("body", "Whose body has this text"),
    text("older_than", "A duration"),
    text("newer_than", "A duration"),
    text("order", "`oldest` or `newest` first"),
    text("after", "The `next` of the page before"),
    LIMIT,
];
const CHOICE: Takes = Takes::Fields(
    1,
    &[
        WHY,
        WHO,
        ("ids", "Which letters"),
        ("filter", "Or all that this finds"),
        ("dry_run", "Only say what would be done"),
        ("to", "A queue, or EXCHANGE/KEY, if the node allows it"),
        ("limit", "At most so many"),
        ("rate", "So many a second"),
    ],
);

/// All of them, in the order of `routes`.
pub(super) const DESCRIPTIONS: &[Description] = &[
    get(
        "/aggregates/{kind}",
        "List aggregates of a kind",
        &[text("after", "The `next` of the page before"), LIMIT],
        &[
            (200, "`aggregates`, and `next` if there are more"),
            (404, "There is no such kind"),
        ],
    ),
    get(
        "/aggregates/{kind}/{id}",
        "Show an aggregate, now or as it was",
        &[
            text("at", "A revision, or a time"),
            text("valid_at", "When it is to be valid"),
        ],
        &[
            (200, "Its state and revision"),
            (404, "There is none"),
            (409, "It can't be replayed here"),
            (422, "Its events can't be replayed"),
        ],
    ),
    get(
        "/aggregates/{kind}/{id}/events",
        "List what happened to an aggregate",
        &[number("after", "The number of the last one read"), LIMIT],
        &[
            (200, "`events`, and `next` if there are more"),
            (404, "There is no such aggregate"),
        ],
    ),
    get(
        "/events",
        "List what happened to all aggregates, in one order",
        &[
            number("after", "The `next` of the page before"),
            text("correlation", "That belong to this"),
            text("kind", "Of aggregates of this kind"),
            LIMIT,
        ],
        &[(200, "`events`, `next`, and whether there are `more`")],
    ),
    get(
        "/projections",
        "List projections and how far each has come",
        &[],
        &[(200, "`projections` and their `generations`")],
    ),
    get(
        "/projections/{name}/{key}",
        "Read a document",
        &[text("as", "`kept`, `now` or `on-demand`")],
        &[
            (200, "The document and its position"),
            (404, "There is none"),
            (409, "It can't be made on demand, or is too far behind"),
        ],
    ),
    get(
        "/audit",
        "List what people did to sagas, schedules, jobs, letters and tokens, newest first",
        &[
            text("after", "The `next` of the page before"),
            text("by", "Done by this one"),
            text("action", "Whose action begins so: `saga`, `job-create`"),
            LIMIT,
        ],
        &[(200, "`entries`, and `next` if there may be more")],
    ),
    get(
        "/dead-letters",
        "List dead letters",
        LETTERS,
        &[(200, "`letters`, and `next` if there are more")],
    ),
    get(
        "/dead-letters/groups",
        "Count dead letters by cause",
        LETTERS,
        &[(200, "`groups`")],
    ),
    get(
        "/dead-letters/stats",
        "Count dead letters",
        LETTERS,
        &[(200, "Counts")],
    ),
    get(
        "/dead-letters/audit",
        "Read what was done to dead letters, by whom and why",
        &[
            number("after", "The number of the last entry read"),
            LIMIT,
            text("verify", "`true`: check the whole chain instead"),
        ],
        &[(200, "`entries`")],
    ),
    get(
        "/dead-letters/export",
        "Export dead letters, a line of JSON each",
        LETTERS,
        &[(200, "Lines of JSON")],
    ),
    post(
        "/dead-letters/import",
        "Import dead letters that were exported",
        Takes::Fields(2, &[("letters", "As exported"), WHY, WHO]),
        &[(200, "How many are `new`"), (409, "One can't be kept")],
    ),
    post(
        "/dead-letters/replay",
        "Send dead letters again",
        CHOICE,
        &[
            (200, "Which were `sent` and which `refused`"),
            (409, "What would be lost by it is not to be lost"),
        ],
    ),
    post(
        "/dead-letters/discard",
        "Discard dead letters",
        CHOICE,
        &[(200, "How many"), (409, "It can't be done to one of them")],
    ),
    post(
        "/dead-letters/purge",
        "Delete dead letters that are done with",
        Takes::Fields(2, &[("older_than", "A duration"), WHY, WHO]),
        &[(200, "How many")],
    ),
    get(
        "/dead-letters/{letter}",
        "Show a dead letter and what was done to it",
        &[],
        &[(200, "The letter"), (404, "There is none")],
    ),
    get(
        "/dead-letters/{letter}/document",
        "Show a dead letter as it can be edited",
        &[],
        &[(200, "The document"), (404, "There is none")],
    ),
    post(
        "/dead-letters/{letter}/edit",
        "Edit a dead letter",
        Takes::Fields(
            1,
            &[
                WHY,
                WHO,
                ("patch", "A JSON Patch (RFC 6902)"),
                ("document", "Or the whole document"),
                ("dry_run", "Only say what would be done"),
            ],
        ),
        &[
            (200, "What is changed"),
            (404, "There is none"),
            (409, "It can't be edited so"),
        ],
    ),
    get(
        "/livez",
        "Ask whether the process runs",
        &[],
        &[(200, "It runs")],
    ),
    get(
        "/readyz",
        "Ask whether the node gets on",
        &[],
        &[(200, "It does")],
    ),
    get(
        "/metrics",
        "Read metrics (Prometheus)",
        &[],
        &[(200, "Metrics")],
    ),
    get(
        "/openapi.json",
        "Read this description",
        &[],
        &[(200, "OpenAPI 3.1")],
    ),
    get(
        "/docs",
        "Read this description as a page",
        &[],
        &[(200, "A page")],
    ),
];
