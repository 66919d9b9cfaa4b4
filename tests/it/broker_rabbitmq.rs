//! The RabbitMQ broker against a real server: the suite of all brokers, and what only a network
//! can do to it. Connections are cut by a small proxy in the test, which needs no rights there.

mod proxy;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backstitch::broker::conformance::{
    Bundle, bodies, check_all, next_batch, tags, take_acked, to,
};
use backstitch::broker::rabbitmq::{RabbitMqBroker, RabbitMqOptions};
use backstitch::broker::{Broker, BrokerError, Health, Published, Queue, Topology};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use self::proxy::{Proxy, UNREADABLE};

/// Longest wait for a condition.
const WAIT_MAX: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rabbitmq_keeps_every_promise_of_a_broker() {
    check_all(bundle(connect(&server()).await)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_connections_lose_nothing_and_mend_themselves() {
    const ALL: usize = 6_000;
    const CUTS: usize = 3;
    let proxy = Proxy::start(&server()).await;
    let bundle = bundle(connect(&proxy.url).await);
    let queue = bundle.queue("q").await;
    let mut consumer = bundle.consume(&queue, 100).await;

    let publisher = {
        let (bundle, queue) = (bundle.clone(), queue.clone());
        tokio::spawn(async move {
            let mut failures = 0;
            for start in (0..ALL).step_by(50) {
                let mut left: Vec<usize> = (start..start + 50).collect();
                while !left.is_empty() {
                    let batch = left.iter().map(|n| to(&queue, *n)).collect();
                    let published = bundle.broker.publish(batch).await;
                    assert_eq!(published.len(), left.len());
                    // As the outbox does: what is not confirmed is published again.
                    let mut words = published.into_iter();
                    left.retain(|_| words.next() != Some(Published::Confirmed));
                    failures += left.len();
                }
            }
            failures
        })
    };

    let mut seen = vec![0_u32; ALL];
    let mut cuts = 0;
    while seen.contains(&0) {
        let batch = next_batch(&mut consumer, 64).await;
        consumer.acks.ack(&tags(&batch));
        for body in bodies(&batch) {
            seen[body.parse::<usize>().unwrap()] += 1;
        }
        let arrived = seen.iter().filter(|times| **times > 0).count();
        if cuts < CUTS && arrived > (cuts + 1) * ALL / (CUTS + 1) {
            proxy.cut();
            cuts += 1;
        }
    }
    let failures = publisher.await.unwrap();
    assert_eq!(cuts, CUTS);
    println!("{failures} publishes were repeated");
    wait_for_health(&*bundle.broker, |health| *health == Health::Up).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_shows_in_the_health_and_publishing_waits_for_its_end() {
    let proxy = Proxy::start(&server()).await;
    let bundle = bundle(connect(&proxy.url).await);
    let queue = bundle.queue("q").await;
    let mut consumer = bundle.consume(&queue, 10).await;
    proxy.refuse(true);
    wait_for_health(&*bundle.broker, |health| matches!(health, Health::Down(_))).await;
    let waiting = {
        let (broker, queue) = (Arc::clone(&bundle.broker), queue.clone());
        tokio::spawn(async move { broker.publish(vec![to(&queue, 7)]).await })
    };
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    proxy.refuse(false);
    assert_eq!(waiting.await.unwrap(), [Published::Confirmed]);
    assert_eq!(bodies(&take_acked(&mut consumer, 1).await), ["7"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_broker_blocks_publishers_publishing_pauses_and_consuming_goes_on() {
    let proxy = Proxy::start(&server()).await;
    let bundle = bundle(connect(&proxy.url).await);
    let queue = bundle.queue("q").await;
    bundle
        .publish_all((0..5).map(|n| to(&queue, n)).collect())
        .await;
    proxy.block("low on disk");
    let blocked = Health::Blocked("low on disk".to_owned());
    wait_for_health(&*bundle.broker, |health| *health == blocked).await;
    let waiting = {
        let (broker, queue) = (Arc::clone(&bundle.broker), queue.clone());
        tokio::spawn(async move { broker.publish(vec![to(&queue, 7)]).await })
    };
    let mut consumer = bundle.consume(&queue, 1).await;
    assert_eq!(take_acked(&mut consumer, 5).await.len(), 5);
    assert!(!waiting.is_finished());
    proxy.unblock();
    assert_eq!(waiting.await.unwrap(), [Published::Confirmed]);
    assert_eq!(bodies(&take_acked(&mut consumer, 1).await), ["7"]);
    assert_eq!(bundle.broker.health(), Health::Up);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_is_not_amqp_comes_with_the_others_and_says_so() {
    let proxy = Proxy::start(&server()).await;
    let bundle = bundle(connect(&proxy.url).await);
    let queue = bundle.queue("q").await;
    let mut batch: Vec<_> = (0..20).map(|n| to(&queue, n)).collect();
    batch[7].message.properties.correlation_id = Some(UNREADABLE.to_owned());
    bundle.publish_all(batch).await;
    let mut consumer = bundle.consume(&queue, 100).await;
    let taken = take_acked(&mut consumer, 20).await;
    let numbers: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    assert_eq!(bodies(&taken), numbers);
    for (n, delivery) in taken.iter().enumerate() {
        assert!(!delivery.redelivered, "the connection broke");
        let unreadable = delivery.message.properties.unreadable.as_ref();
        let why = unreadable.map(|unreadable| unreadable.why.as_str());
        let wanted = (n == 7).then_some("its correlation id is not UTF-8");
        assert_eq!(why, wanted);
    }
    // It is not sent as if nothing were wrong with it.
    let again = backstitch::broker::Outgoing {
        message: taken[7].message.clone(),
        ..to(&queue, 7)
    };
    let word = bundle.broker.publish(vec![again]).await;
    assert!(matches!(word[..], [Published::Refused(_)]), "{word:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_the_server_breaks_the_connection_over_costs_no_other_one() {
    let bundle = bundle(connect(&server()).await);
    let queue = bundle.queue("q").await;
    let mut consumer = bundle.consume(&queue, 1_000).await;
    // RabbitMQ 3.10 stumbles over such a name; newer ones just find nobody there.
    let culprit = to("amq.rabbitmq.reply-to.rubbish", 0);
    let publishers = (0..6).map(|publisher| {
        let (broker, queue, culprit) = (Arc::clone(&bundle.broker), queue.clone(), culprit.clone());
        async move {
            let mut batch: Vec<_> = (0..50).map(|n| to(&queue, publisher * 100 + n)).collect();
            if publisher == 2 {
                batch.insert(17, culprit);
            }
            broker.publish(batch).await
        }
    });
    let words = futures_util::future::join_all(publishers).await;
    let fate = &words[2][17];
    assert!(
        matches!(fate, Published::Refused(_) | Published::Unroutable),
        "{fate:?}"
    );
    let confirmed = words
        .iter()
        .flatten()
        .filter(|word| **word == Published::Confirmed);
    assert_eq!(confirmed.count(), 300, "{words:?}");
    let mut seen = BTreeSet::new();
    while seen.len() < 300 {
        let batch = next_batch(&mut consumer, 100).await;
        consumer.acks.ack(&tags(&batch));
        seen.extend(bodies(&batch));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_come_back_several_times_is_taken_one_by_one() {
    let bundle = bundle(connect(&server()).await);
    let queue = bundle.queue("q").await;
    let batch = (0..20).map(|n| to(&queue, n)).collect();
    bundle.publish_all(batch).await;
    for _ in 0..3 {
        // As one who dies with all of them in hand.
        let mut consumer = bundle.consume(&queue, 100).await;
        backstitch::broker::conformance::take(&mut consumer, 20).await;
    }
    let mut consumer = bundle.consume(&queue, 100).await;
    let mut seen = Vec::new();
    while seen.len() < 20 {
        let batch = next_batch(&mut consumer, 100).await;
        assert_eq!(batch.len(), 1, "{seen:?}");
        consumer.acks.ack(&tags(&batch));
        seen.extend(bodies(&batch));
    }
    let numbers: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    assert_eq!(seen, numbers);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acks_for_a_lost_connection_are_ignored() {
    let proxy = Proxy::start(&server()).await;
    let bundle = bundle(connect(&proxy.url).await);
    let queue = bundle.queue("q").await;
    bundle.publish_all(vec![to(&queue, 1), to(&queue, 2)]).await;
    let mut consumer = bundle.consume(&queue, 1).await;
    let before = next_batch(&mut consumer, 1).await;
    proxy.cut();
    let after = next_batch(&mut consumer, 1).await;
    assert_eq!(bodies(&after), bodies(&before));
    assert!(after[0].redelivered && after[0].tag > before[0].tag);
    // Were it taken for the new delivery's, the next message would come.
    consumer.acks.ack(&tags(&before));
    consumer.acks.requeue(&tags(&after));
    let again = next_batch(&mut consumer, 1).await;
    assert_eq!(bodies(&again), bodies(&before));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acked_is_told_before_the_broker_closes() {
    let broker = Arc::new(connect(&server()).await);
    let bundle = bundle_of(Arc::clone(&broker) as Arc<dyn Broker>);
    let queue = bundle.queue("q").await;
    let batch = (0..100).map(|n| to(&queue, n)).collect();
    bundle.publish_all(batch).await;
    let mut consumer = bundle.consume(&queue, 100).await;
    take_acked(&mut consumer, 60).await;
    drop(consumer);
    broker.close().await;
    let next = bundle_of(Arc::new(connect(&server()).await));
    let mut consumer = next.consume(&queue, 100).await;
    let left = take_acked(&mut consumer, 40).await;
    assert_eq!(bodies(&left)[0], "60");
    assert!(broker.consume(&queue, 1).await.is_err());
    let refused = broker.publish(vec![to(&queue, 0)]).await;
    assert!(matches!(refused[..], [Published::Failed(_)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_classic_queue_in_the_way_is_a_clash_that_says_so() {
    let bundle = bundle(connect(&server()).await);
    let name = bundle.name("classic");
    declare_classic(&name).await;
    let topology = Topology {
        queues: vec![Queue {
            name: name.clone(),
            dead_letter_to: None,
        }],
        ..Topology::default()
    };
    match bundle.broker.declare(&topology).await {
        Err(BrokerError::Clash { what, difference }) => {
            assert!(what.contains(&name), "{what}");
            assert!(difference.contains("x-queue-type"), "{difference}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn refusals_are_told_at_once_and_without_the_password() {
    let server = server();
    let (credentials, place) = server
        .trim_start_matches("amqp://")
        .split_once('@')
        .unwrap();
    let (host, _) = place.split_once('/').unwrap_or((place, ""));
    for (url, word) in [
        (
            format!("amqp://guest:secret-password@{host}/%2f"),
            "password",
        ),
        (
            format!("amqp://{credentials}@{host}/no-such-vhost"),
            "virtual host",
        ),
        ("amqp://user:secret-password@".to_owned(), "URL"),
    ] {
        let since = Instant::now();
        let error = try_connect(&url, WAIT_MAX).await.err().unwrap();
        assert!(since.elapsed() < WAIT_MAX / 2, "{error} took long");
        let text = error.to_string();
        assert!(matches!(error, BrokerError::Connect(_)), "{text}");
        assert!(text.contains(word), "{text}");
        assert!(!format!("{text}{error:?}").contains("secret"), "{text}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error_when_patience_ends() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "amqp://u:secret-password@{}/%2f",
        nobody.local_addr().unwrap()
    );
    drop(nobody);
    let patience = Duration::from_millis(500);
    let error = try_connect(&url, patience).await.err().unwrap().to_string();
    assert!(
        error.contains("refused") && !error.contains("secret"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_comes_late_is_waited_for() {
    let proxy = Proxy::start(&server()).await;
    proxy.refuse(true);
    let url = proxy.url.clone();
    let connecting = tokio::spawn(async move { try_connect(&url, WAIT_MAX).await });
    proxy.refused_one().await;
    proxy.refuse(false);
    assert_eq!(connecting.await.unwrap().unwrap().health(), Health::Up);
}

/// Prints rates; run it by name, in a release build.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn measure_publish_and_consume_rates() {
    const ALL: usize = 60_000;
    const TASKS: usize = 8;
    let bundle = bundle(connect(&server()).await);
    let queue = bundle.queue("q").await;
    let since = Instant::now();
    let mut publishers = JoinSet::new();
    for _ in 0..TASKS {
        let (bundle, queue) = (bundle.clone(), queue.clone());
        publishers.spawn(async move {
            for _ in 0..ALL / TASKS / 64 {
                let batch = (0..64).map(|n| {
                    let mut outgoing = to(&queue, n);
                    outgoing.message.body = vec![b'x'; 1024].into();
                    outgoing.message.properties.message_id = Some(uuid::Uuid::now_v7().to_string());
                    outgoing
                });
                bundle.publish_all(batch.collect()).await;
            }
        });
    }
    publishers.join_all().await;
    let published = ALL / TASKS / 64 * 64 * TASKS;
    print_rate("published", published, since);
    let since = Instant::now();
    let mut consumer = bundle.consume(&queue, 500).await;
    let mut left = published;
    while left > 0 {
        let batch = next_batch(&mut consumer, 200).await;
        consumer.acks.ack(&tags(&batch));
        left -= batch.len();
    }
    print_rate("consumed", published, since);
}

fn print_rate(what: &str, messages: usize, since: Instant) {
    let elapsed = since.elapsed();
    let rate = messages as u128 * 1_000 / elapsed.as_millis().max(1);
    println!("{what} {messages} in {elapsed:?}: {rate}/s");
}

/// The server's URL, from the environment.
fn server() -> String {
    std::env::var("BACKSTITCH_TEST_AMQP").unwrap_or_else(|_| {
        panic!("BACKSTITCH_TEST_AMQP is not set: run ./test, which starts a RabbitMQ for the tests")
    })
}

async fn try_connect(url: &str, patience: Duration) -> Result<RabbitMqBroker, BrokerError> {
    let options = RabbitMqOptions {
        patience,
        ..RabbitMqOptions::default()
    };
    RabbitMqBroker::connect(url, options).await
}

async fn connect(url: &str) -> RabbitMqBroker {
    match try_connect(url, WAIT_MAX).await {
        Ok(broker) => broker,
        Err(error) => panic!("{error}"),
    }
}

fn bundle(broker: RabbitMqBroker) -> Bundle {
    bundle_of(Arc::new(broker))
}

fn bundle_of(broker: Arc<dyn Broker>) -> Bundle {
    Bundle {
        broker,
        prefix: format!("test.{}", uuid::Uuid::now_v7().simple()),
    }
}

async fn wait_for_health(broker: &dyn Broker, wanted: impl Fn(&Health) -> bool) {
    let wait = async {
        while !wanted(&broker.health()) {
            tokio::task::yield_now().await;
        }
    };
    let came = tokio::time::timeout(WAIT_MAX, wait).await.is_ok();
    assert!(came, "the health stays {:?}", broker.health());
}

/// A queue as other programs declare them.
async fn declare_classic(name: &str) {
    let properties = lapin::ConnectionProperties::default();
    let connection = lapin::Connection::connect(&server(), properties)
        .await
        .unwrap();
    let channel = connection.create_channel().await.unwrap();
    let options = lapin::options::QueueDeclareOptions {
        durable: true,
        ..Default::default()
    };
    let arguments = lapin::types::FieldTable::default();
    let declared = channel.queue_declare(name.into(), options, arguments);
    declared.await.unwrap();
}
