// The ranks of a test program: one, or as many as mpirun starts.
#pragma once

#include "parallel/world.h"

/// Made by main before the tests run.
const ratplus::parallel::World& world();
