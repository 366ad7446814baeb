// weights_are_finite: whether the state that a run stops with is one to go on from.
#pragma once

#include "lib/session/session.h"

namespace ratplus::train {

/// Whether every master weight, of all ranks, is finite. By all ranks together; reads them from the devices once.
bool weights_are_finite(session::Session& session);

}  // namespace ratplus::train
