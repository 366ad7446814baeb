// Options of commands that run a model: its pattern, device, lengths and tokenizer.
#pragma once

#include <boost/program_options.hpp>
#include <string>
#include <vector>

#include "lib/infer/inference.h"

namespace ratplus::apps {

struct ModelOptions {
  infer::ModelRequest request;
  std::string tokenizer;
  std::string end_of_text;
  std::string device, precision;
};

struct EngineOptions {
  infer::EngineRequest request;
  std::string prefix_cache;
};

/// Bytes of a text such as 512MiB, 4GiB or 1.5G (units of 1024). Throws boost::program_options::error naming the option.
std::int64_t parse_size(const std::string& text, const std::string& option);

/// The patterns that speeds of generation are asked for, checked against the model: those given by --pattern; of none, some
/// published ones, or where a layer takes no pattern dense alone. Throws Error.
std::vector<model::PatternPlan> generation_patterns(const std::vector<std::string>& given,
                                                    const model::ModelConfig& model);

/// Adds --slots and --prefix-cache.
void add_engine_options(boost::program_options::options_description& description, EngineOptions& options);
/// Fills in the request. Throws boost::program_options::error for a value out of its range.
void check_engine_options(const boost::program_options::variables_map& given, EngineOptions& options);
/// Adds --length, --longer, --rope-base, --rope-scale, --tokenizer and --end-of-text.
void add_sequence_options(boost::program_options::options_description& description, ModelOptions& options);
/// Adds --device, --precision, --threads and --head-dim.
void add_device_options(boost::program_options::options_description& description, ModelOptions& options);
/// Fills in request.device and request.precision. Throws boost::program_options::error for a value out of its range.
void check_model_options(const boost::program_options::variables_map& given, ModelOptions& options);

}  // namespace ratplus::apps
