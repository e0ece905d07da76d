# What `cmake --install --component kit` lays out beside the installed program: the tests of ops and
# of the model with their golden files, what compares with the Python libraries, and check.sh.
set(KIT COMPONENT kit EXCLUDE_FROM_ALL)
set(KIT_TESTS dump_logits)
set(names "")
foreach(thing ${DEVICE_TESTS})
  list(APPEND KIT_TESTS test_${thing})
  if(thing IN_LIST OP_TESTS)
    string(APPEND names "op ${thing}\n")
  else()
    string(APPEND names "model ${thing}\n")
  endif()
endforeach()
foreach(name ${KIT_TESTS} planted_world)
  target_link_options(${name} PRIVATE -Wl,--disable-new-dtags) # as the program: tools/archive.cmake
  set_target_properties(${name} PROPERTIES INSTALL_RPATH "$ORIGIN/../lib/sails")
endforeach()
add_custom_target(kit_parts DEPENDS ${KIT_TESTS} planted_world)

file(WRITE ${PROJECT_BINARY_DIR}/device_tests "${names}")
install(FILES ${PROJECT_BINARY_DIR}/device_tests DESTINATION tests ${KIT})
install(TARGETS ${KIT_TESTS} RUNTIME DESTINATION tests ${KIT})
install(TARGETS planted_world RUNTIME DESTINATION tools ${KIT})
install(DIRECTORY golden DESTINATION tests ${KIT})
set(root ${PROJECT_SOURCE_DIR})
install(PROGRAMS ${root}/tools/gpu/check.sh DESTINATION . ${KIT})
install(FILES ${root}/tools/gpu/lines.sh ${root}/tools/gpu/summary.sh DESTINATION tools/gpu ${KIT})
install(FILES ${root}/tools/check_wide.py ${root}/tools/check_peft.py ${root}/tools/check_step.py
              ${root}/tools/make_golden_model.py DESTINATION tools ${KIT})
install(FILES ${root}/bench/peers/common.py ${root}/bench/peers/train_hf.py
        DESTINATION bench/peers ${KIT})
