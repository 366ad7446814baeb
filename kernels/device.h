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

/// What a user asks for; automatic takes GPUs where there are some.
enum class DeviceChoice { automatic, cpu, cuda };

/// "auto", "cpu" or "cuda".
inline const char* to_string(DeviceChoice choice) {
  if (choice == DeviceChoice::automatic) return "auto";
  return choice == DeviceChoice::cpu ? "cpu" : "cuda";
}

/// "cpu" or "cuda:0".
inline std::string to_string(const Device& device) {
  return device.kind == DeviceKind::cpu ? "cpu" : "cuda:" + std::to_string(device.index);
}

}  // namespace ratplus
