//! Backstitch: a saga orchestrator for teams whose services talk over RabbitMQ.
//!
//! The modules stand in the order a message takes, and each may use only those that come before
//! it in `docs/ARCHITECTURE.md`.

pub mod access;
pub mod address;
pub mod aggregates;
pub mod broker;
pub mod canonical;
pub mod cli;
pub mod dead_letters;
pub mod definition;
pub mod engine;
pub mod environment;
pub mod error;
pub mod file;
pub mod http;
pub mod id;
pub mod limits;
pub mod message;
pub mod metric;
pub mod numeral;
pub mod participant;
pub mod projection;
pub mod proof;
pub mod saga;
pub mod sim;
pub mod store;
pub mod verify;
pub mod view;
