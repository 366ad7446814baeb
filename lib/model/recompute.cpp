#include "lib/model/recompute.h"

namespace ratplus::model {

const char* to_string(Recompute recompute) {
  switch (recompute) {
    case Recompute::none:
      return "none";
    case Recompute::cheap:
      return "cheap";
    case Recompute::block:
      return "block";
  }
  return "?";
}

}  // namespace ratplus::model
