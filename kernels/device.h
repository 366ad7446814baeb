// Device: where memory lives and operations run.
#pragma once

#include <string>

namespace ratplus {

enum class DeviceKind { cpu, cuda };

/// One processor with a memory of its own: the host (all threads of this rank), or one GPU by local index.
struct Device {
  DeviceKind kind = DeviceKind::cpu;
  int index = 0;

  friend bool operator==(const Device&, const Device&) = default;
};

/// "cpu" or "cuda:0".
inline std::string to_string(const Device& device) {
  return device.kind == DeviceKind::cpu ? "cpu" : "cuda:" + std::to_string(device.index);
}

}  // namespace ratplus
