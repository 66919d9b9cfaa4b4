//! The single integration binary, so that everything links once.
//!
//! What needs PostgreSQL, RabbitMQ or Python takes them from the environment that `./test` sets.

mod bad_input;
mod broker_rabbitmq;
mod browser;
mod children;
mod closure;
mod dead_letters;
mod dead_letters_large;
mod dead_letters_plain;
mod dead_letters_routes;
mod demo;
mod deploy;
mod end_to_end;
mod fixture;
mod garbage;
mod half_dead;
mod hostile;
mod hostile_page;
mod memory;
mod operators_night;
mod operators_night_page;
mod outbox_poison;
mod python_participant;
mod random_sagas;
mod reading_back;
mod reading_back_large;
mod releases;
mod rights;
mod sagas;
mod security;
mod signals;
mod simulate;
mod simulation;
mod starts;
mod store_postgres;
mod tables;
mod tidy;
mod topology;
mod verify;
mod verify_letters;
