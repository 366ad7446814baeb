// MixerForm: a mixer between its projections, as inference computes it (docs/model.md, section 19).
#pragma once

#include <cstdint>

#include "lib/model/projection.h"

namespace ratplus::model {

/// Parts of in_proj u, of width 0 where the mixer has none, and how they are combined. Every mixer is an instance:
///     k~, v~ = recurrence of k, v by f, or k, v;  a = attention of q over k~, v~, or v~;  out_proj (a sigmoid(o)), or of a
struct MixerForm {
  ProjectionPart o = {}, q = {}, k = {}, v = {}, f = {};
  std::int64_t chunk =
      0;  ///< L: tokens of a position, after which the recurrence begins anew; 0: it never does

  bool attends() const { return q.width > 0; }
  bool recurs() const { return f.width > 0; }
};

}  // namespace ratplus::model
