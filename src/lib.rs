//! Backstitch: a saga orchestrator for teams whose services talk over RabbitMQ.
//!
//! The modules stand in the order a message takes; each may use only those above it.

pub mod broker;
pub mod definition;
pub mod engine;
pub mod environment;
pub mod error;
pub mod id;
pub mod message;
pub mod metric;
pub mod saga;
pub mod store;
pub mod view;
