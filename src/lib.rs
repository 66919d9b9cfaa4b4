//! Backstitch: a saga orchestrator for teams whose services talk over RabbitMQ.
//!
//! A message comes from the [`broker`] to the [`engine`], which decodes it ([`message`]), loads the saga that
//! it is for ([`store`]), has the core decide what follows ([`saga`], by its [`definition`]), commits that
//! and publishes it. Services answer by way of [`participant`]; what nobody can handle becomes one of the
//! [`dead_letters`].
//!
//! In the source the modules stand in groups, each of which uses only itself and those before it. The
//! order of them all, what each is for and what it keeps true is in `docs/ARCHITECTURE.md`.

// What everything is built of.
pub mod address;
pub mod canonical;
pub mod environment;
pub mod error;
pub mod file;
pub mod id;
pub mod jobs;
pub mod limits;
pub mod metric;
pub mod numeral;

// What is said, what is to be done, and what follows: without I/O.
pub mod definition;
pub mod message;
pub mod saga;

// A message's way.
pub mod broker;
pub mod engine;
pub mod store;
pub mod verify;

// The services' side, and what is read back of it.
pub mod aggregates;
pub mod participant;
pub mod projection;

// What looks on: at letters, at what went in and came out, at one saga, at all of it under a seed.
pub mod dead_letters;
pub mod proof;
pub mod sim;
pub mod view;

// What people touch.
pub mod access;
pub mod cli;
pub mod http;
pub mod page;
