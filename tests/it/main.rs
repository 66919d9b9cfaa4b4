//! The single integration binary, so that everything links once.
//!
//! What needs PostgreSQL, RabbitMQ or Python takes them from the environment that `./test` sets.

mod bad_input;
mod end_to_end;
mod fixture;
mod python_participant;
mod simulation;
mod tidy;
