// --device and --precision of commands that compute.
#pragma once

#include <string>

#include "kernels/device.h"
#include "kernels/tensor.h"

namespace ratplus::apps {

/// "auto", "cpu", "cuda"; "bf16", "f32". Throw boost::program_options::error for anything else.
DeviceChoice parse_device(const std::string& text);
DType parse_precision(const std::string& text);

}  // namespace ratplus::apps
