//! The least rights that `grants` prints are enough, and no more: everything runs with just these.

use backstitch::store::postgres::migrate;

use crate::fixture::{
    Backends, Command, Node, PATIENCE, Sent, Wire, blocking, eventually, finish, rabbitmqctl,
    repository, told,
};

/// Participants of the saga that is run.
const SERVICES: [&str; 4] = ["inventory", "orders", "payments", "mailer"];
/// Who needs a user of the broker.
const USERS: [&str; 6] = [
    "node",
    "starter",
    "inventory",
    "orders",
    "payments",
    "mailer",
];

/// Roles and users of one test, named after its virtual host.
struct Granted {
    backends: Backends,
    prefix: String,
    users: Vec<String>,
}

impl Granted {
    /// Carries out what `grants` prints.
    fn new(backends: Backends) -> Self {
        let host = backends.virtual_host.name().to_owned();
        let prefix = format!(
            "g{}",
            host.replace(|c: char| !c.is_ascii_alphanumeric(), "_")
        );
        let printed = Command::backstitch(["grants", "--sagas"])
            .with(repository("sagas"))
            .with("--database")
            .with(backends.database.name())
            .with("--virtual-host")
            .with(&host)
            .with("--prefix")
            .with(&prefix);
        let printed = finish(&printed);
        assert!(printed.status.success(), "{}", told(&printed));
        let text = String::from_utf8(printed.stdout).expect("text");
        let (sql, commands) = text.split_once("# RabbitMQ").expect("both parts");
        let (before, after) = sql.split_once("\n\n").expect("two steps");
        // Nobody but the owner makes tables; here that is who runs the test.
        backends.database.run(before);
        blocking(async || migrate(&backends.database.url).await).unwrap();
        backends.database.run(after);
        let mut users = Vec::new();
        for line in commands
            .lines()
            .filter(|line| line.starts_with("rabbitmqctl "))
        {
            let words: Vec<&str> = line
                .split(' ')
                .map(|word| word.trim_matches('\''))
                .collect();
            let user = words[4].to_owned();
            // Each call of the tool takes a second: those of other sagas are left out.
            let whose = user
                .strip_prefix(&prefix)
                .and_then(|rest| rest.strip_prefix('_'));
            if !whose.is_some_and(|whose| USERS.contains(&whose)) {
                continue;
            }
            rabbitmqctl(&["add_user", &user, "granted"]).unwrap();
            rabbitmqctl(&words[1..]).unwrap();
            users.push(user);
        }
        Self {
            backends,
            prefix,
            users,
        }
    }

    /// The broker's URL for a user.
    fn amqp(&self, user: &str) -> String {
        let url = &self.backends.virtual_host.url;
        let (_, place) = url.split_once('@').expect("the URL has a user");
        format!("amqp://{}_{user}:granted@{place}", self.prefix)
    }

    /// The database's URL for a role.
    fn database(&self, role: &str) -> String {
        let url = &self.backends.database.url;
        let (scheme, rest) = url.split_once("://").expect("a URL");
        let (_, host) = rest.split_once('@').expect("a user");
        format!("{scheme}://{}_{role}@{host}", self.prefix)
    }

    fn command(&self, arguments: &[&str], role: &str, user: &str) -> Command {
        Command::backstitch(arguments)
            .database(self.database(role))
            .with("--amqp-url")
            .with(self.amqp(user))
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        for user in &self.users {
            // Best effort: a test that failed has other troubles.
            let _ = rabbitmqctl(&["delete_user", user]);
        }
        for role in ["owner", "node", "auditor"] {
            let name = format!("{}_{role}", self.prefix);
            self.backends
                .database
                .run(&format!("DROP OWNED BY {name}; DROP ROLE {name}"));
        }
    }
}

#[test]
fn orders_are_placed_and_audited_with_the_least_rights() {
    let granted = Granted::new(Backends::create());
    let admin = Wire::connect(&granted.backends.virtual_host.url);
    // Their queues are an administrator's to make.
    let mut makers = Node::start(
        &Command::backstitch([&["participants"], &SERVICES[..]].concat()).on(&granted.backends),
    );
    for service in SERVICES {
        granted.backends.virtual_host.wait_for_consumer(service);
    }
    assert!(makers.terminate().success(), "{}", makers.log());

    let sagas = repository("sagas");
    let sagas = sagas.to_string_lossy();
    let address = crate::fixture::free_address();
    let serve = ["serve", "--sagas", &sagas, "--listen", &address];
    let mut node = Node::start(&granted.command(&serve, "node", "node"));
    let mut running: Vec<Node> = SERVICES
        .iter()
        .map(|service| {
            let arguments = ["participants", service, "--reply-exchange"];
            Node::start(&granted.command(&arguments, "node", service))
        })
        .collect();
    granted
        .backends
        .virtual_host
        .wait_for_consumer("backstitch.start");
    let starter = Wire::connect(&granted.amqp("starter"));
    let body = br#"{"order_id": "1", "customer": "ann", "total": 100, "items": [{"sku": "book", "quantity": 1}]}"#;
    let start = Sent {
        kind: Some("place-order"),
        message_id: Some("one"),
        body,
        ..Sent::default()
    };
    starter.publish("backstitch.start", "any", &start);
    eventually("the saga ends", PATIENCE * 2, || {
        node.assert_running();
        (granted.backends.database.ended_sagas() == 1).then_some(())
    });
    assert!(admin.take("backstitch.dead-letters").is_none());

    let audited = |arguments: &[&str]| {
        let command = Command::backstitch(arguments).database(granted.database("auditor"));
        finish(&command)
    };
    for arguments in [
        &["list"][..],
        &["verify"],
        &["dead-letters", "list"],
        &["doctor"],
    ] {
        let output = audited(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", told(&output));
    }
    let tokens = audited(&["token", "list"]);
    assert!(!tokens.status.success(), "{}", told(&tokens));
    for node in running.iter_mut().chain([&mut node]) {
        assert!(node.terminate().success(), "{}", node.log());
    }
}
