// A small model that has learnt a little, and its answers, for tests of generation.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace ratplus::test {

/// The directory of its run, which the first call makes.
std::string learnt_run();

/// Standard output alone of ratplus with these arguments; requires status 0.
std::string output_of(const std::string& arguments);

std::vector<nlohmann::json> lines_of(const std::filesystem::path& file);
void write_lines(const std::filesystem::path& file, const std::vector<nlohmann::json>& lines);

/// log softmax of the logits of eval --dump-logits: [token][vocabulary], of one sequence.
std::vector<std::vector<double>> log_probabilities(const std::vector<std::int32_t>& tokens,
                                                   const std::string& pattern);

std::int32_t likeliest(const std::vector<double>& row);

}  // namespace ratplus::test
