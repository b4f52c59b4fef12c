//! The image's tests. To add one: write the function in a file below, and its line here.

mod flushes;
mod forks;
mod frames;
mod maps;
mod paging;
mod processors;
mod qmp;
mod rights;
mod traps;

use super::Kernel;
use super::harness::{Outcome, Test, fail};

/// All tests, in the order in which they run.
pub(crate) const TESTS: &[Test] = &[
    ("frames::memory_map_is_sane", frames::memory_map_is_sane),
    ("frames::nothing_reserved_is_free", frames::nothing_reserved_is_free),
    ("frames::every_order_is_dealt_out_aligned", frames::every_order_is_dealt_out_aligned),
    ("frames::allocating_and_freeing_conserves_frames", frames::conserves_frames),
    ("frames::blocks_hold_their_own_bytes", frames::blocks_hold_their_own_bytes),
    ("frames::a_double_free_is_refused", frames::a_double_free_is_refused),
    ("maps::hole_below_one_mib_is_never_dealt_out", maps::hole_below_one_mib_is_never_dealt_out),
    ("maps::many_regions_are_dealt_out_once_each", maps::many_regions_are_dealt_out_once_each),
    ("paging::levels_are_those_of_the_cpu", paging::levels_are_those_of_the_cpu),
    ("paging::image_is_mapped_with_its_rights", paging::image_is_mapped_with_its_rights),
    ("paging::direct_map_reaches_all_ram", paging::direct_map_reaches_all_ram),
    ("paging::direct_map_uses_huge_leaves", paging::direct_map_uses_huge_leaves),
    ("paging::nothing_is_writable_and_executable", paging::nothing_is_writable_and_executable),
    ("paging::demand_fault_gives_a_cleared_page", paging::demand_fault_gives_a_cleared_page),
    ("paging::demand_faults_over_many_tables", paging::demand_faults_over_many_tables),
    (
        "paging::demand_fault_without_frames_is_not_resolved",
        paging::demand_fault_without_frames_is_not_resolved,
    ),
    ("paging::unmapped_page_faults_after_the_flush", paging::unmapped_page_faults_after_flush),
    ("paging::narrowed_page_faults_after_the_flush", paging::narrowed_page_faults_after_flush),
    ("paging::huge_leaf_is_split_by_unmapping_a_page", paging::huge_leaf_is_split),
    ("paging::a_mapping_in_the_way_is_named", paging::a_mapping_in_the_way_is_named),
    ("paging::hardware_sets_accessed_and_dirty", paging::hardware_sets_accessed_and_dirty),
    (
        "flushes::each_way_to_flush_drops_what_is_stale",
        flushes::each_way_to_flush_drops_what_is_stale,
    ),
    ("flushes::what_the_cpu_has_is_on", flushes::what_the_cpu_has_is_on),
    ("flushes::a_pair_of_roots_hides_the_kernel", flushes::a_pair_of_roots_hides_the_kernel),
    ("forks::a_shared_node_is_not_written_through", forks::a_shared_node_is_not_written_through),
    ("rights::ring_3_reaches_user_pages_alone", rights::ring_3_reaches_user_pages_alone),
    ("rights::read_only_pages_are_not_written", rights::read_only_pages_are_not_written),
    ("rights::pages_without_exec_are_not_executed", rights::pages_without_exec_are_not_executed),
    ("rights::smep_keeps_ring_0_from_user_code", rights::smep_keeps_ring_0_from_user_code),
    ("rights::smap_keeps_ring_0_from_user_data", rights::smap_keeps_ring_0_from_user_data),
    ("rights::umip_keeps_addresses_from_ring_3", rights::umip_keeps_addresses_from_ring_3),
    ("rights::a_reserved_bit_is_told_apart", rights::a_reserved_bit_is_told_apart),
    (
        "processors::second_cpu_has_its_own_stack_and_the_same_tables",
        processors::second_cpu_has_its_own_stack_and_the_same_tables,
    ),
    (
        "processors::without_the_shootdown_the_second_cpu_reads_the_old_frame",
        processors::without_the_shootdown_the_second_cpu_reads_the_old_frame,
    ),
    (
        "processors::with_the_shootdown_it_reads_the_new_one",
        processors::with_the_shootdown_it_reads_the_new_one,
    ),
    (
        "processors::every_shape_of_flush_reaches_the_second_cpu",
        processors::every_shape_of_flush_reaches_the_second_cpu,
    ),
    (
        "processors::a_frame_comes_back_only_after_the_shootdown",
        processors::a_frame_comes_back_only_after_the_shootdown,
    ),
    (
        "processors::the_second_cpu_loses_the_right_to_write",
        processors::the_second_cpu_loses_the_right_to_write,
    ),
    (
        "processors::tables_come_back_only_after_the_shootdown",
        processors::tables_come_back_only_after_the_shootdown,
    ),
    (
        "processors::both_cpus_fault_on_the_same_pages",
        processors::both_cpus_fault_on_the_same_pages,
    ),
    ("processors::both_cpus_flush_at_each_other", processors::both_cpus_flush_at_each_other),
    ("qmp::walker_agrees_with_qemu", qmp::walker_agrees_with_qemu),
    ("traps::identity_map_is_gone", traps::identity_map_is_gone),
    ("traps::writing_rodata_and_text_faults", traps::writing_rodata_and_text_faults),
    ("traps::executing_data_faults", traps::executing_data_faults),
    ("traps::guard_pages_fault", traps::guard_pages_fault),
    ("traps::stack_overflow_is_a_double_fault", traps::stack_overflow_is_a_double_fault),
    ("traps::non_canonical_access_is_refused", traps::non_canonical_access_is_refused),
    ("traps::invalid_opcode_is_caught", traps::invalid_opcode_is_caught),
];

/// Fails: for `provoke=failure`.
pub(crate) fn failing(_: &Kernel) -> Outcome {
    fail!("failed as asked")
}

/// Panics: for `provoke=panic`.
pub(crate) fn panicking(_: &Kernel) -> Outcome {
    panic!("panicked as asked");
}

/// Traps where no probe waits: for `provoke=trap`.
pub(crate) fn trapping(_: &Kernel) -> Outcome {
    x86_64::instructions::interrupts::int3();
    Ok(())
}
