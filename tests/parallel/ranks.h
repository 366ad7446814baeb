// The ranks of a test program that is started under mpirun.
#pragma once

#include "parallel/world.h"

/// Made by main before the tests run.
const ratplus::parallel::World& world();
