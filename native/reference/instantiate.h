// Both modes of an op.
#pragma once

#define SL_INSTANTIATE(op)                            \
  template void op<float>(stream&, const op##_args&); \
  template void op<double>(stream&, const op##_args&);
