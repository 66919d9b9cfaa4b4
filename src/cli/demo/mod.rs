//! `backstitch demo`: thousands of orders through a shop that is not well, and the proof that it
//! all adds up.
//!
//! The files stand in the order of a run: [`workload`] makes up the orders and decides which of
//! them must fail; [`world`] runs the node and the participants; [`faults`] stands between the
//! participants and their broker; [`client`] starts the sagas over the broker as anybody would
//! and counts the answers; [`report`] says what happened. The proof itself is
//! [`crate::proof`]: it reads the stores and believes nothing that was counted here.
//!
//! Everything that is made up follows from `--seed`, so two runs meet the same orders and faults.

mod arguments;
mod client;
mod faults;
mod progress;
mod report;
#[cfg(test)]
mod tests;
mod workload;
mod world;

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::exit::{Exit, Failure};
use super::output;
use crate::environment::{Environment, TokioEnvironment};
use crate::proof::{Proof, prove, prove_drained};
use crate::store::{Outbox, StoreError};
pub(super) use arguments::Arguments;
use client::Client;
use faults::FaultPlan;
use progress::Progress;
use report::{Cpu, Report};
use workload::{Sizes, Workload};
use world::DemoWorld;

/// How long the last messages may take to leave the outbox once every saga has ended: rows that a
/// crash left behind are swept after a grace time.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(30);
/// How often to look whether they have left.
const DRAIN_LOOK_EVERY: Duration = Duration::from_millis(100);

pub(super) async fn run(arguments: Arguments) -> Result<Exit, Failure> {
    let report = demonstrate(&arguments).await?;
    if arguments.json {
        output::print_json(&report)?;
    } else {
        output::print(&report.to_string())?;
    }
    Ok(if report.held() {
        Exit::Done
    } else {
        Exit::Failed
    })
}

async fn demonstrate(arguments: &Arguments) -> Result<Report, Failure> {
    let environment = TokioEnvironment;
    let sizes = Sizes {
        orders: arguments.orders,
        customers: arguments.customers,
        articles: arguments.articles,
    };
    // Nobody swallows answers for a shop that runs elsewhere.
    let with_silence = !arguments.no_faults && !arguments.attach;
    let workload = Workload::make(
        sizes,
        arguments.seed,
        environment.new_id(),
        environment.now(),
        with_silence,
    );
    let plan = Arc::new(if arguments.no_faults {
        FaultPlan::none()
    } else {
        FaultPlan::new(arguments.seed, &workload)
    });
    let world = DemoWorld::open(&arguments.database, &arguments.broker, arguments.attach).await?;
    world.stock_up(&workload, environment.now()).await?;
    let shop = if arguments.attach {
        None
    } else {
        Some(world.start(&plan).await?)
    };

    let progress = Progress::new(workload.orders.len());
    let client = Client {
        broker: world.broker(),
        store: world.sagas(),
        in_flight: arguments.in_flight,
        plan: Arc::clone(&plan),
    };
    let cpu_before = Cpu::now();
    let trouble = async {
        match &shop {
            Some(shop) if !arguments.no_faults => shop.make_trouble(&progress, &plan).await,
            Some(shop) => shop.failed().await,
            None => std::future::pending().await,
        }
    };
    let outcome = tokio::select! {
        outcome = client.run(&workload, &progress) => outcome?,
        failure = trouble => return Err(failure),
    };
    let drained = drained(&world).await.map_err(unreadable)?;
    let cpu = Cpu::now().since(cpu_before);
    progress.say("proving that it adds up");
    let mut proofs = prove(&*world.sagas(), &*world.participants(), &workload.expected)
        .await
        .map_err(unreadable)?;
    proofs.push(drained);
    progress.finish();
    if let Some(shop) = shop {
        shop.stop().await;
    }
    let report = Report::new(arguments, &world, outcome, &plan, cpu, proofs);
    world.close().await;
    Ok(report)
}

/// Waits until the outboxes are empty, or for [`DRAIN_TIME_MAX`].
async fn drained(world: &DemoWorld) -> Result<Proof, StoreError> {
    let (sagas, participants) = (world.sagas(), world.participants());
    let outboxes: [&dyn Outbox; 2] = [&*sagas, &*participants];
    let begin = Instant::now();
    loop {
        let proof = prove_drained(&outboxes).await?;
        if proof.held || begin.elapsed() > DRAIN_TIME_MAX {
            return Ok(proof);
        }
        tokio::time::sleep(DRAIN_LOOK_EVERY).await;
    }
}

fn unreadable(error: StoreError) -> Failure {
    Failure::new(format!("can't read what came of the orders: {error}"))
}
