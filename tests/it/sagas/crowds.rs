//! Hundreds of sagas that want the same thing at the same moment, with the shipped participants.
//! What there is goes to as many as it is enough for, and the totals add up to the last cent.

use std::collections::{BTreeMap, BTreeSet};

use backstitch::aggregates::ledger::{Entry, ledger};
use backstitch::aggregates::quotas::Amounts;
use backstitch::aggregates::{
    Credit, Inventory, Invoices, Mailer, Payments, Quotas, credit, inventory, payments, quotas,
};
use backstitch::participant::Aggregate;
use backstitch::saga::Status;
use backstitch::sim::network::FaultRates;
use backstitch::sim::stage::{DAY, Play, SagaPlay, Stage};
use backstitch::store::participant::{AggregateKey, ParticipantStore};
use futures_util::FutureExt;
use serde_json::json;

use super::{all_states, stage, state_of};

/// Most events that one aggregate has in these plays.
const EVENTS_MAX: usize = 10_000;
/// Plays with a bad network, for each crowd.
const BAD_DAYS: u64 = 4;

fn completed<'p>(play: &'p Play, name: &'p str) -> Vec<&'p SagaPlay> {
    let all = play.sagas_of(name);
    all.filter(|saga| saga.status == Status::Completed)
        .collect()
}

fn stock(pieces: u64) -> [inventory::Event; 1] {
    [inventory::Event::Received { quantity: pieces }]
}

fn money(cents: u64) -> [payments::Event; 1] {
    [payments::Event::Deposited { amount: cents }]
}

const PRICE: u64 = 8_950;

/// So many buyers, each with the money for one ticket, for so many tickets.
fn rush(buyers: u64, tickets: u64) -> Stage {
    let opened = stage(&["buy-ticket"])
        .shipped_participants()
        .given::<Inventory>("concert", stock(tickets));
    (0..buyers).fold(opened, |stage, buyer| {
        let name = format!("buyer-{buyer}");
        let input = json!({
            "purchase": name, "buyer": name, "concert": "concert", "seats": 1, "cents": PRICE,
        });
        stage
            .given::<Payments>(name, money(PRICE))
            .start("buy-ticket", input)
    })
}

/// Who has paid has a ticket and a receipt, and the other way round. Returns how many.
fn tickets_sold(play: &Play) -> u64 {
    play.assert_sound();
    let winners: BTreeSet<&str> = completed(play, "buy-ticket")
        .iter()
        .map(|saga| saga.key.as_str())
        .collect();
    for (buyer, account) in all_states::<Payments>(play) {
        let paid = if winners.contains(buyer.as_str()) {
            PRICE
        } else {
            0
        };
        assert_eq!(
            (account.captured, account.actual),
            (paid, PRICE - paid),
            "{buyer}"
        );
        assert_eq!(account.actual, account.available, "{buyer}");
    }
    let receipts = all_states::<Mailer>(play);
    assert_eq!(
        receipts.iter().map(|(_, mail)| mail.count).sum::<u64>(),
        winners.len() as u64
    );
    let concert = state_of::<Inventory>(play, "concert");
    assert_eq!(concert.sold, winners.len() as u64);
    assert_eq!(
        (concert.reserved, concert.on_hand + concert.sold),
        (0, concert.received)
    );
    concert.sold
}

#[test]
fn a_thousand_buyers_get_exactly_the_five_hundred_tickets_there_are() {
    let play = rush(1_000, 500).play();
    assert_eq!(play.sagas.len(), 1_000);
    assert_eq!(tickets_sold(&play), 500);
    let lost = play
        .sagas
        .iter()
        .filter(|saga| saga.status == Status::Compensated);
    for saga in lost {
        let why = "compensated: seats rejected: not enough stock: 1 of `concert` wanted, 0 left";
        assert_eq!(saga.ended_as(), why);
    }
}

#[test]
fn no_ticket_is_sold_twice_on_a_bad_day() {
    for seed in 0..BAD_DAYS {
        let play = rush(60, 30).seed(seed).faults(FaultRates::default()).play();
        let sold = tickets_sold(&play);
        // Who gave up has given the seat back, perhaps too late for the others.
        assert!((1..=30).contains(&sold), "seed {seed}: {sold}");
    }
}

/// Two customers with a limit, and what each purchase costs.
fn spree(seed: u64, purchases: usize) -> (Stage, BTreeMap<String, (String, u64)>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut costs = BTreeMap::new();
    let mut opened = stage(&["buy-on-credit"])
        .shipped_participants()
        .given::<Inventory>("lamp", stock(10_000));
    for customer in ["ada", "bob"] {
        let limit = [credit::Event::Granted { limit: CREDIT }];
        opened = opened.given::<Credit>(Credit::id(2026, customer), limit);
    }
    for number in 0..purchases {
        let (purchase, amount) = (format!("p-{number}"), random.u64(1..=97));
        let customer = if random.bool() { "ada" } else { "bob" };
        opened = opened.start(
            "buy-on-credit",
            json!({
                "purchase": purchase, "customer": customer, "sku": "lamp", "quantity": 1,
                "amount": amount,
            }),
        );
        costs.insert(purchase, (customer.to_owned(), amount));
    }
    (opened, costs)
}

const CREDIT: u64 = 2_503;

/// What each customer owes is what was sold, and never more than the limit.
fn check_credit(play: &Play, costs: &BTreeMap<String, (String, u64)>) {
    play.assert_sound();
    let sold = completed(play, "buy-on-credit");
    for customer in ["ada", "bob"] {
        let owed = sold.iter().filter(|saga| costs[&saga.key].0 == customer);
        let owed: u64 = owed.map(|saga| costs[&saga.key].1).sum();
        let credit = state_of::<Credit>(play, &Credit::id(2026, customer));
        assert_eq!((credit.used, credit.reserved), (owed, 0), "{customer}");
        assert!(credit.used <= CREDIT, "{customer}: {}", credit.used);
    }
    assert_eq!(state_of::<Inventory>(play, "lamp").sold, sold.len() as u64);
}

#[test]
fn purchases_that_come_all_at_once_use_the_credit_up_and_not_a_cent_more() {
    let (stage, costs) = spree(1, 250);
    let play = stage.play();
    check_credit(&play, &costs);
    let mut refused = 0;
    for saga in play
        .sagas
        .iter()
        .filter(|saga| saga.status == Status::Compensated)
    {
        // Nobody else gave up, so whoever was refused would not fit in now either.
        let (customer, amount) = &costs[&saga.key];
        let left = state_of::<Credit>(&play, &Credit::id(2026, customer)).left();
        assert!(*amount > left, "{} wanted {amount} of {left}", saga.key);
        refused += 1;
    }
    assert!(refused > 50, "{refused}");
}

#[test]
fn no_credit_is_exceeded_on_a_bad_day() {
    for seed in 0..BAD_DAYS {
        let (stage, costs) = spree(seed, 120);
        let play = stage.seed(seed).faults(FaultRates::default()).play();
        check_credit(&play, &costs);
    }
}

const ACCOUNTS: u64 = 8;
const BALANCE: u64 = 1_000;

/// Everybody sends money to everybody, and sometimes more than there is.
fn transfers(seed: u64, count: usize) -> Stage {
    let mut random = fastrand::Rng::with_seed(seed);
    let opened = (0..ACCOUNTS).fold(
        stage(&["transfer-money"]).shipped_participants(),
        |stage, account| stage.given::<Payments>(format!("acc-{account}"), money(BALANCE)),
    );
    (0..count).fold(opened, |stage, number| {
        let [from, to] = [0, 1].map(|_| format!("acc-{}", random.u64(..ACCOUNTS)));
        let input = json!({
            "transfer": format!("t-{number}"), "from": from, "to": to, "amount": random.u64(1..=400),
        });
        stage.start("transfer-money", input)
    })
}

fn events_of<A: Aggregate>(play: &Play, id: &str) -> Vec<A::Event> {
    let key = AggregateKey {
        kind: A::KIND.to_owned(),
        id: id.to_owned(),
    };
    let read = play.participants.aggregate_events(&key, 0, EVENTS_MAX);
    // The memory store answers at once.
    let rows = read.now_or_never().unwrap().unwrap();
    rows.iter()
        .map(|row| serde_json::from_slice(&row.body).unwrap())
        .collect()
}

/// No cent was made or lost, and each completed transfer is in the books with both its halves.
fn check_books(play: &Play) -> usize {
    play.assert_sound();
    let accounts = all_states::<Payments>(play);
    let total: u64 = accounts.iter().map(|(_, account)| account.actual).sum();
    assert_eq!(total, ACCOUNTS * BALANCE);
    let events: Vec<(&str, Vec<payments::Event>)> = accounts
        .iter()
        .map(|(id, _)| (id.as_str(), events_of::<Payments>(play, id)))
        .collect();
    let books = ledger(events.iter().map(|(id, events)| (*id, events.as_slice())));
    assert_eq!(books.unbalanced, [""; 0]);
    let mut entries = books.entries;
    let mut expected: Vec<Entry> = completed(play, "transfer-money")
        .iter()
        .map(|saga| serde_json::to_value(saga.view()).unwrap()["input"].clone())
        .map(|input| Entry {
            from: input["from"].as_str().unwrap().to_owned(),
            to: input["to"].as_str().unwrap().to_owned(),
            amount: input["amount"].as_u64().unwrap(),
        })
        .collect();
    entries.sort();
    expected.sort();
    assert_eq!(entries, expected);
    for (id, account) in &accounts {
        let sum = |of: fn(&Entry) -> &String| -> u64 {
            entries
                .iter()
                .filter(|entry| of(entry) == id)
                .map(|entry| entry.amount)
                .sum()
        };
        let (paid, got) = (sum(|entry| &entry.from), sum(|entry| &entry.to));
        assert_eq!(account.actual + paid, BALANCE + got, "{id}");
        assert_eq!(account.actual, account.available, "{id}");
        assert!(account.expected.is_empty(), "{id}");
    }
    entries.len()
}

#[test]
fn three_hundred_transfers_at_once_keep_the_ledger_balanced() {
    let play = transfers(1, 300).play();
    let done = check_books(&play);
    // Both must happen, or nothing is shown.
    assert!(done > 30 && done < 270, "{done}");
}

#[test]
fn the_ledger_is_balanced_after_a_bad_day() {
    for seed in 0..BAD_DAYS {
        let play = transfers(seed, 80)
            .seed(seed)
            .faults(FaultRates::default())
            .play();
        assert!(check_books(&play) > 0, "seed {seed}");
    }
}

const LIMITS: Amounts = Amounts {
    users: 25,
    projects: 10,
    storage_mb: 1_000,
};

fn projects(count: u64) -> Stage {
    let opened = stage(&["add-project"])
        .shipped_participants()
        .given::<Quotas>("t", [quotas::Event::LimitsSet { limits: LIMITS }])
        .answer(
            "storage.allocate",
            backstitch::sim::stage::succeeds(json!({ "volume": "v" })),
        )
        // Found out only after the quota was reserved, which then is free again.
        .answer(
            backstitch::sim::stage::on("projects.create").key("t/p-0"),
            backstitch::sim::stage::rejects("the name is taken"),
        );
    (0..count).fold(opened, |stage, number| {
        let members: Vec<String> = (0..number % 4)
            .map(|user| format!("u-{number}-{user}"))
            .collect();
        let input = json!({
            "tenant": "t", "project": format!("p-{number}"), "members": members,
            "megabytes": 40 + number % 100,
        });
        stage.start("add-project", input)
    })
}

fn check_quotas(play: &Play) -> Amounts {
    play.assert_sound();
    let done = completed(play, "add-project");
    let input = |saga: &SagaPlay| serde_json::to_value(saga.view()).unwrap()["input"].clone();
    let mut used = Amounts::default();
    for saga in &done {
        let input = input(saga);
        used.users += input["members"].as_array().unwrap().len() as u64;
        used.projects += 1;
        used.storage_mb += input["megabytes"].as_u64().unwrap();
    }
    let quotas = state_of::<Quotas>(play, "t");
    assert_eq!((quotas.used, quotas.reserved), (used, Amounts::default()));
    assert!(used.users <= LIMITS.users && used.storage_mb <= LIMITS.storage_mb);
    assert!(used.projects <= LIMITS.projects);
    // What the services have is what the quota says.
    assert_eq!(play.count("projects.open") as u64, used.projects);
    assert_eq!(play.count("users.activate") as u64, used.users);
    used
}

#[test]
fn forty_projects_at_once_stay_within_the_tenants_quotas() {
    let used = check_quotas(&projects(40).play());
    assert!(used.projects >= 8, "{used:?}");
    for seed in 0..BAD_DAYS {
        check_quotas(&projects(40).seed(seed).faults(FaultRates::default()).play());
    }
}

const INVOICES: u64 = 5;
const EDITORS: u64 = 12;
const ROUNDS: u64 = 3;
const ARTICLES: [&str; 3] = ["bulb", "lamp", "shade"];

/// In each round everybody edits every invoice at the revision that everybody saw.
fn editing(seed: u64) -> Stage {
    let mut random = fastrand::Rng::with_seed(seed);
    let opened = ARTICLES.into_iter().fold(
        stage(&["edit-invoice"]).shipped_participants(),
        |stage, sku| stage.given::<Inventory>(sku, stock(200)),
    );
    (0..ROUNDS).fold(opened, |stage, round| {
        let stage = stage.at(DAY * u32::try_from(round).unwrap());
        (0..INVOICES * EDITORS).fold(stage, |stage, number| {
            let (invoice, editor) = (number % INVOICES, number / INVOICES);
            let lines: Vec<_> = ARTICLES
                .iter()
                .map(|sku| json!({ "sku": sku, "quantity": random.u64(ROUNDS..=9) }))
                .collect();
            let (more, fewer) = lines.split_at(if round == 0 { 3 } else { 2 });
            // One piece a round: each invoice has enough for that after its first one.
            let fewer: Vec<_> = fewer
                .iter()
                .map(|line| json!({ "sku": line["sku"], "quantity": 1 }))
                .collect();
            let input = json!({
                "edit": format!("{round}-{invoice}-{editor}"), "invoice": format!("i-{invoice}"),
                "editor": format!("editor-{editor}"), "revision": round, "more": more,
                "fewer": fewer,
            });
            stage.start("edit-invoice", input)
        })
    })
}

/// The stock that was sold is what stands on the invoices. Returns the revisions.
fn check_invoices(play: &Play) -> Vec<u64> {
    play.assert_sound();
    let invoices = all_states::<Invoices>(play);
    for sku in ARTICLES {
        let article = state_of::<Inventory>(play, sku);
        let on_invoices = invoices
            .iter()
            .filter_map(|(_, invoice)| invoice.lines.get(sku));
        assert_eq!(article.sold, on_invoices.sum::<u64>(), "{sku}");
        assert_eq!(
            (article.reserved, article.on_hand + article.sold),
            (0, 200),
            "{sku}"
        );
    }
    let saved: u64 = invoices.iter().map(|(_, invoice)| invoice.revision).sum();
    assert_eq!(completed(play, "edit-invoice").len() as u64, saved);
    assert!(invoices.iter().all(|(_, invoice)| invoice.edit.is_none()));
    invoices
        .into_iter()
        .map(|(_, invoice)| invoice.revision)
        .collect()
}

#[test]
fn of_many_edits_of_one_revision_one_is_saved_and_the_stock_follows_it() {
    let play = editing(1).play();
    assert_eq!(
        check_invoices(&play),
        vec![ROUNDS; usize::try_from(INVOICES).unwrap()]
    );
    let lost = play
        .sagas
        .iter()
        .filter(|saga| saga.status == Status::Compensated);
    for saga in lost {
        let why = saga.ended_as();
        assert!(
            why.contains("is being edited by editor-") || why.contains("was changed by editor-"),
            "{why}"
        );
    }
}

#[test]
fn invoices_and_stock_agree_after_a_bad_day() {
    for seed in 0..BAD_DAYS {
        check_invoices(
            &editing(seed)
                .seed(seed)
                .faults(FaultRates::default())
                .play(),
        );
    }
}
