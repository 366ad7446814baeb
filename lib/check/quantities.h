// Quantities: what `ratplus check` measures on every rank, each with its unit and the rule by which a rank stands out.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>

namespace ratplus::check {

enum class Quantity : std::uint8_t {
  products,
  copies,
  to_host,
  link,
  group,
  network,
  disk_write,
  disk_read,
  data_read,
  clock,
  device_memory,
  host_memory,
  locked_memory,
  corrected_errors,
  uncorrected_errors,
  xid_errors,
};

enum class Unit : std::uint8_t { operations, bytes_a_second, seconds, bytes, count };

/// When a rank's value is reported.
enum class Rule : std::uint8_t {
  below_median,  ///< below 80 % of the median of all ranks
  apart,         ///< more than half a second from the median
  not_zero,      ///< above 0
  none,          ///< never
};
inline constexpr double least_share_of_median = 0.8;
inline constexpr double most_seconds_apart = 0.5;

struct QuantityInfo {
  Quantity quantity;
  const char* key;    ///< in JSON, with its unit
  const char* title;  ///< in the table and in messages
  Unit unit;
  Rule rule;
};

inline constexpr std::array quantities = {
    QuantityInfo{Quantity::products, "products_operations_per_second", "products", Unit::operations,
                 Rule::below_median},
    QuantityInfo{Quantity::copies, "copies_bytes_per_second", "copies in memory", Unit::bytes_a_second,
                 Rule::below_median},
    QuantityInfo{Quantity::to_host, "to_host_bytes_per_second", "GPU to host", Unit::bytes_a_second,
                 Rule::below_median},
    QuantityInfo{Quantity::link, "link_bytes_per_second", "link to a rank of its host", Unit::bytes_a_second,
                 Rule::below_median},
    QuantityInfo{Quantity::group, "group_bytes_per_second", "all ranks of its host", Unit::bytes_a_second,
                 Rule::below_median},
    QuantityInfo{Quantity::network, "network_bytes_per_second", "link to another host", Unit::bytes_a_second,
                 Rule::below_median},
    QuantityInfo{Quantity::disk_write, "disk_write_bytes_per_second", "checkpoint directory, write",
                 Unit::bytes_a_second, Rule::below_median},
    QuantityInfo{Quantity::disk_read, "disk_read_bytes_per_second", "checkpoint directory, read",
                 Unit::bytes_a_second, Rule::below_median},
    QuantityInfo{Quantity::data_read, "data_read_bytes_per_second", "data, read", Unit::bytes_a_second,
                 Rule::below_median},
    QuantityInfo{Quantity::clock, "clock_seconds", "clock, beside rank 0's", Unit::seconds, Rule::apart},
    QuantityInfo{Quantity::device_memory, "device_memory_bytes", "memory of the device, free", Unit::bytes,
                 Rule::below_median},
    QuantityInfo{Quantity::host_memory, "host_memory_bytes", "memory of the host, free, a rank", Unit::bytes,
                 Rule::below_median},
    QuantityInfo{Quantity::locked_memory, "locked_memory_bytes", "memory that may be locked", Unit::bytes,
                 Rule::below_median},
    QuantityInfo{Quantity::corrected_errors, "ecc_corrected", "ECC errors, corrected", Unit::count,
                 Rule::none},
    QuantityInfo{Quantity::uncorrected_errors, "ecc_uncorrected", "ECC errors, not corrected", Unit::count,
                 Rule::not_zero},
    QuantityInfo{Quantity::xid_errors, "xid_errors", "Xid errors of the driver", Unit::count, Rule::not_zero},
};

/// A value for each quantity; none where it was not told.
class Values {
 public:
  std::optional<double>& operator[](Quantity quantity) { return values_[static_cast<std::size_t>(quantity)]; }
  const std::optional<double>& operator[](Quantity quantity) const {
    return values_[static_cast<std::size_t>(quantity)];
  }

 private:
  std::array<std::optional<double>, quantities.size()> values_;
};

}  // namespace ratplus::check
