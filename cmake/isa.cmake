# The CPU levels: one OBJECT library a level, from the same files, with the level's flags.
# Order is from least to most capable; csrc/cpu/levels.def repeats the names for C++.
set(HONED_LEVELS baseline avx2 avx2_vnni avx512 avx512_vnni avx512_bf16 avx512_fp16
                 avx512_amx)
# Kernels do not throw: without exceptions no object of theirs refers to shared exception code.
set(HONED_FLAGS_baseline -fno-exceptions)
set(HONED_FLAGS_avx2 ${HONED_FLAGS_baseline} -mavx2 -mfma -mf16c -mbmi2)
set(HONED_FLAGS_avx2_vnni ${HONED_FLAGS_avx2} -mavxvnni)
set(HONED_FLAGS_avx512 ${HONED_FLAGS_avx2} -mavx512f -mavx512bw -mavx512vl -mavx512dq
                       -mprefer-vector-width=512)
set(HONED_FLAGS_avx512_vnni ${HONED_FLAGS_avx512} -mavx512vnni)
set(HONED_FLAGS_avx512_bf16 ${HONED_FLAGS_avx512_vnni} -mavx512bf16)
set(HONED_FLAGS_avx512_fp16 ${HONED_FLAGS_avx512_bf16} -mavx512fp16)
set(HONED_FLAGS_avx512_amx ${HONED_FLAGS_avx512_fp16} -mamx-tile -mamx-int8 -mamx-bf16)
# What a level compiles of csrc/cpu/kernels; the rest it takes from the level below. Not named here: all.
set(HONED_KERNELS_avx2_vnni linear)
set(HONED_KERNELS_avx512_vnni linear)
set(HONED_KERNELS_avx512_bf16 linear matmul product_rate scaled_dot_product_attention)
set(HONED_KERNELS_avx512_fp16 linear product_rate)
set(HONED_KERNELS_avx512_amx linear product_rate)

include(CheckCXXCompilerFlag)

function(honed_add_levels target)
  file(GLOB kernels CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/csrc/cpu/kernels/*.cpp)
  foreach(level IN LISTS HONED_LEVELS)
    set(supported TRUE)
    foreach(flag IN LISTS HONED_FLAGS_${level})
      string(MAKE_C_IDENTIFIER "HONED_HAS${flag}" name)
      check_cxx_compiler_flag(${flag} ${name})
      if(NOT ${name})
        set(supported FALSE)
      endif()
    endforeach()
    if(NOT supported)
      message(STATUS "honed: the compiler lacks level ${level}; it is left out")
      continue()
    endif()
    set(own ${kernels})
    if(DEFINED HONED_KERNELS_${level})
      list(TRANSFORM HONED_KERNELS_${level} REPLACE "(.+)" "${CMAKE_SOURCE_DIR}/csrc/cpu/kernels/\\1.cpp"
           OUTPUT_VARIABLE own)
    endif()
    add_library(honed_cpu_${level} OBJECT ${own} ${CMAKE_SOURCE_DIR}/csrc/cpu/table.cpp)
    target_compile_definitions(honed_cpu_${level} PRIVATE HONED_LEVEL=${level})
    # GCC 12 reports its own intrinsics' "undefined" operands as maybe uninitialized.
    target_compile_options(honed_cpu_${level} PRIVATE ${HONED_FLAGS_${level}} ${HONED_COMPILE_OPTIONS}
                           "$<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized;-Wno-uninitialized>")
    target_include_directories(honed_cpu_${level} PRIVATE ${CMAKE_SOURCE_DIR}/csrc)
    target_compile_definitions(${target} PRIVATE HONED_WITH_${level}=1)
    target_link_libraries(${target} PRIVATE honed_cpu_${level})
  endforeach()
endfunction()
