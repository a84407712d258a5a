/** Names of sub-operations, for statistics: of calls whose first argument is one, and of mmuext_op's entries. (Xen, "public/*.h") */

const VERSION =
  'version extraversion compile_info capabilities changeset platform_parameters get_features pagesize guest_handle commandline build_id'
const EVENTS =
  'bind_interdomain bind_virq bind_pirq close send status alloc_unbound bind_ipi bind_vcpu unmask reset init_control expand_array set_priority'
const VCPU =
  'initialise up down is_up get_runstate_info register_runstate_area set_periodic_timer stop_periodic_timer set_singleshot_timer stop_singleshot_timer register_vcpu_info send_nmi get_physid register_time_area'
const GRANTS =
  'map unmap setup_table dump transfer copy query_size unmap_and_replace set_version get_status_frames get_version swap cache_flush'
const MEMORY =
  'increase_reservation decrease_reservation maximum_ram_page current_reservation maximum_reservation machphys_mfn_list populate_physmap add_to_physmap - memory_map machine_memory_map exchange machphys_mapping set_memory_map - remove_from_physmap'
const MMU_EXTENDED =
  'pin_l1 pin_l2 pin_l3 pin_l4 unpin new_baseptr tlb_flush_local invlpg_local tlb_flush_multi invlpg_multi tlb_flush_all invlpg_all flush_cache set_ldt - new_user_baseptr clear_page copy_page flush_cache_global mark_super unmark_super'

/** By number of the call; `-` has no name. */
export const OPERATION_NAMES: ReadonlyMap<number, readonly string[]> = new Map(
  (
    [
      [12, MEMORY],
      [17, VERSION],
      [20, GRANTS],
      [24, VCPU],
      [26, MMU_EXTENDED],
      [29, 'yield block shutdown poll remote_shutdown shutdown_code watchdog pin_override'],
      [30, 'register unregister'],
      [32, EVENTS],
      [33, '- - - - - - set_iopl set_iobitmap'],
      [34, 'set_param get_param'],
    ] as const
  ).map(([number, names]) => [number, names.split(' ')]),
)
/** Its first argument is a list of operations, which it counts itself. */
export const LISTS_OPERATIONS = 26
