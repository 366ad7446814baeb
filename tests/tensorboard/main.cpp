// Tests of lib/tensorboard: event files, read by a decoder of our own and by TensorBoard's.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
