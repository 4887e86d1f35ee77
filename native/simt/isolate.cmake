# sl_isolate(NAME SYMBOL ARCHIVE TARGETS...): links the objects of TARGETS and what they need of ARCHIVE ("" for none)
# into NAME.o, whose only defined global symbol is SYMBOL. Two builds of the same sources can then stand in one library,
# weak std templates and all: at -O0 one compiler's copy would otherwise win for both.
function(sl_isolate name symbol archive)
  set(objects)
  foreach(target ${ARGN})
    list(APPEND objects $<TARGET_OBJECTS:${target}>)
  endforeach()
  set(out ${CMAKE_CURRENT_BINARY_DIR}/${name}.o)
  add_custom_command(
    OUTPUT ${out}
    COMMAND ${CMAKE_LINKER} -r --force-group-allocation -o ${out}.all ${objects} ${archive}
    COMMAND ${CMAKE_OBJCOPY} --keep-global-symbol=${symbol} ${out}.all ${out}
    DEPENDS ${ARGN} ${objects}
    COMMAND_EXPAND_LISTS VERBATIM
    COMMENT "isolating ${name}")
  set_source_files_properties(${out} PROPERTIES EXTERNAL_OBJECT TRUE GENERATED TRUE)
  add_custom_target(${name} ALL DEPENDS ${out})
endfunction()
