#include "lib/weights/description.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/json_dump.h"
#include "base/parse_json.h"
#include "lib/checkpoint/model_json.h"

namespace ratplus::weights {
namespace {

using Json = nlohmann::ordered_json;

}  // namespace

std::string describe(const checkpoint::Info& info) {
  return json_dump(Json{{"model", checkpoint::to_json(info.model)},
                        {"step", info.step},
                        {"tokens", info.tokens},
                        {"tokenizer", info.tokenizer},
                        {"job", info.job}});
}

void read_description(const std::string& text, checkpoint::Info& info) {
  try {
    const Json json = parse_json<Json>(text);
    info.model = checkpoint::model_from_json(json.at("model"), info.directory);
    info.step = checkpoint::integer_from_json(json, "step", info.directory);
    info.tokens = checkpoint::integer_from_json(json, "tokens", info.directory);
    json.at("tokenizer").get_to(info.tokenizer);
    json.at("job").get_to(info.job);
  } catch (const Json::exception& error) {
    fail("{}: the description of its weights (\"ratplus\") is damaged ({})", info.directory.string(),
         error.what());
  }
}

}  // namespace ratplus::weights
