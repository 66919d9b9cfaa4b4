//! What every store must do, as one suite that all of them run.
//!
//! [`store_conformance!`](crate::store_conformance) makes a test of each case. It is part of the
//! library, not of its tests, because the suite runs where the databases are: memory and SQLite
//! beside their code, PostgreSQL in the integration binary. A case gets an empty store and panics
//! if the store breaks its contract, hence `unwrap`.

// A case is a test: it panics by design.
#![allow(clippy::missing_panics_doc)]

mod feed;
mod jobs;
mod letters;
mod messages;
mod occurrences;
mod participants;
mod projections;
mod queries;
mod requests;
mod sagas;
pub mod sample;
mod search;
mod starts;
mod tokens;

pub use feed::*;
pub use jobs::*;
pub use letters::*;
pub use messages::*;
pub use occurrences::*;
pub use participants::*;
pub use projections::*;
pub use queries::*;
pub use requests::*;
pub use sagas::*;
pub use search::*;
pub use starts::*;
pub use tokens::*;

use super::dead_letters::DeadLetterStore;
use super::projections::ReadModels;
use super::{CensusStore, JobStore, RequestStore, SagaSearch, Store, StoreError, TokenStore};

/// A store that keeps all kinds of tables, as a test gets it.
pub trait Complete:
    Store
    + ReadModels
    + DeadLetterStore
    + TokenStore
    + CensusStore
    + SagaSearch
    + JobStore
    + RequestStore
{
}

impl<S> Complete for S where
    S: Store
        + ReadModels
        + DeadLetterStore
        + TokenStore
        + CensusStore
        + SagaSearch
        + JobStore
        + RequestStore
{
}

/// An empty store for one case, and what must outlive it.
#[async_trait::async_trait]
pub trait Fixture: Send {
    /// The store.
    fn store(&self) -> &dyn Complete;

    /// Removes what the store left behind; not called when the case fails.
    async fn close(self);
}

/// Makes a test of each case. The argument is an async function that opens a [`Fixture`].
#[macro_export]
macro_rules! store_conformance {
    ($open:path) => {
        $crate::store_conformance! { @cases $open:
            a_new_saga_is_loaded_as_it_was_written,
            load_answers_in_the_order_asked,
            load_brings_only_newer_entries,
            load_leaves_out_what_is_too_much_at_once,
            load_of_a_whole_saga_starts_at_its_newest_snapshot,
            a_change_is_seen_by_the_next_load,
            a_saga_keeps_what_it_started_with,
            a_conflict_leaves_the_saga_out_whole_and_stores_the_rest,
            what_was_decided_on_another_revision_conflicts,
            a_key_belongs_to_one_saga,
            of_concurrent_writers_one_wins,
            of_concurrent_starts_one_gets_the_key,
            batches_over_the_same_sagas_do_not_lock_each_other_out,
            a_batch_that_breaks_its_promises_is_refused_whole,
            a_batch_of_a_thousand_sagas_is_stored,
            an_empty_batch_is_stored,
            text_comes_back_whatever_it_is,
            keys_that_no_database_takes_are_refused,
            find_answers_in_the_order_asked,
            due_sagas_are_claimed_earliest_first,
            a_claimed_saga_is_claimed_again_after_its_time,
            a_saga_is_claimed_by_one_of_concurrent_nodes,
            a_definition_is_stored_once,
            the_first_secret_stays,
            list_is_newest_first_and_filtered,
            list_is_bounded,
            the_journal_is_read_in_pages_and_whole_whatever_snapshots_there_are,
            a_journal_is_read_in_pages,
            sagas_are_found_by_the_rows_of_other_tables,
            counts_are_by_name_and_status,
            a_schedule_is_moved_by_who_knows_where_it_stands,
            a_schedule_is_marked_and_moved,
            of_concurrent_nodes_one_settles_a_tick,
            a_trial_is_counted_until_it_is_ended,
            a_superseded_saga_gives_up_its_key,
            live_sagas_are_counted_by_version,
            a_census_counts_what_lives_and_what_waits,
            live_sagas_are_counted_by_version_within_a_bound,
            what_began_and_ended_is_counted_by_minute,
            an_outbox_row_comes_back_as_it_was_written,
            due_outbox_rows_are_swept_oldest_first,
            it_is_known_which_rows_are_still_there,
            an_outbox_row_is_swept_by_one_of_concurrent_nodes,
            sent_rows_are_removed_once_and_for_all,
            an_outbox_row_is_stored_once,
            a_dead_letter_is_stored_once_and_listed_newest_first,
            letters_are_found_by_what_they_are,
            a_redelivery_is_no_new_letter_and_a_new_delivery_is,
            what_differs_in_anything_is_another_letter,
            what_comes_after_a_letter_was_handled_is_a_new_one,
            a_message_of_another_type_did_not_come_back,
            a_replay_is_committed_whole_and_once,
            an_edit_leaves_the_original,
            a_replay_that_comes_back_is_linked_to_its_letter,
            letters_are_grouped_by_cause,
            an_import_has_entries_of_its_own_and_is_remembered,
            retention_spares_what_is_open,
            what_exists_is_loaded_in_key_order,
            a_dropped_transaction_leaves_nothing,
            a_participants_commit_writes_everything,
            an_insert_of_what_exists_conflicts_and_leaves_nothing,
            an_update_of_what_is_missing_is_refused,
            a_load_waits_for_the_lock_and_sees_what_was_written,
            concurrent_transactions_lose_no_update,
            of_concurrent_first_answers_one_is_kept,
            events_come_in_order_and_are_numbered_once,
            aggregates_are_paged_by_id,
            events_of_all_aggregates_are_in_one_order,
            a_page_of_events_ends_by_bytes_too,
            events_are_found_by_kind_and_correlation,
            an_event_says_where_it_comes_from,
            causes_stand_before_their_effects_whoever_commits_when,
            an_old_state_is_found_by_revision_and_time,
            a_generation_moves_with_its_documents_or_not_at_all,
            of_concurrent_projectors_one_does_the_step,
            a_generation_is_built_beside_the_one_that_serves,
            a_document_made_on_demand_is_kept_for_its_time,
            a_token_is_found_by_its_hash_until_it_is_revoked,
            what_is_done_to_tokens_is_in_the_audit_log,
            each_condition_of_a_filter_finds_what_the_reference_finds,
            pages_of_each_order_bring_everything_once,
            labels_are_found_by_their_type,
            counts_end_at_their_bound,
            sagas_in_trouble_are_grouped_by_cause,
            a_job_is_held_by_one_node_at_a_time,
            what_a_node_writes_about_a_job_that_changed_is_refused,
            a_person_stops_a_job_and_lets_it_go_on,
            what_became_of_each_saga_is_kept_once,
            a_request_is_carried_out_once,
            a_claim_is_given_up_or_taken_over,
            of_the_same_requests_at_once_one_is_carried_out,
            answers_are_kept_for_their_time,
            a_deed_is_in_the_audit_log,
        }
    };
    (@cases $open:path: $($case:ident,)*) => {
        $(
            #[tokio::test]
            async fn $case() {
                use $crate::store::conformance::Fixture;
                let fixture = $open().await;
                $crate::store::conformance::$case(fixture.store()).await;
                fixture.close().await;
            }
        )*
    };
}

/// Repeats what lost against another transaction, as the engine does.
async fn until_stored<T, F, R>(mut attempt: F) -> T
where
    F: FnMut() -> R,
    R: Future<Output = Result<T, StoreError>>,
{
    const ATTEMPTS_MAX: usize = 1_000;
    for _ in 0..ATTEMPTS_MAX {
        match attempt().await {
            Ok(done) => return done,
            Err(StoreError::Conflict | StoreError::Unavailable(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    panic!("not stored in {ATTEMPTS_MAX} attempts")
}
