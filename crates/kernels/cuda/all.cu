// All kernels in one unit: nvcc makes one fat binary of it, the emulator one object.

#include "adamw.cu"
#include "attention.cu"
#include "attention_backward.cu"
#include "choose.cu"
#include "heads.cu"
#include "logps.cu"
#include "norms.cu"
#include "rows.cu"
#include "swiglu.cu"
