#include "lib/plan/plan_json.h"

#include <nlohmann/json.hpp>
#include <utility>

namespace ratplus::plan {

using Json = nlohmann::ordered_json;

Json to_json(const Plan& plan, const Cluster& cluster) {
  const auto& step = plan.step;
  Json memory = Json::object(), work = Json::array(), updates = Json::array();
  for (const auto& part : plan.memory.parts) memory[part.category] = part.bytes;
  Json json = {{"gpu", cluster.gpu->name},
               {"nodes", cluster.nodes},
               {"gpus_per_node", cluster.gpus_per_node},
               {"link_bytes_per_second", cluster.link_bandwidth()},
               {"network_bytes_per_second", cluster.network_bandwidth()},
               {"parameters", plan.parameters},
               {"memory", std::move(memory)},
               {"memory_bytes", plan.memory.bytes},
               {"memory_available", plan.memory.available},
               {"fits", plan.memory.fits()},
               {"checkpoint_bytes", plan.checkpoint_bytes},
               {"checkpoints", plan.checkpoints},
               {"export_bytes", plan.export_bytes},
               {"cautions", plan.cautions}};
  if (!plan.memory.fits()) {
    json["way_to_fit"] = plan.memory.way_to_fit;
    return json;
  }
  for (const auto& update : step.updates) {
    updates.push_back(
        {{"pattern", update.pattern}, {"seconds", update.seconds}, {"operations", update.operations}});
  }
  for (std::size_t part = 0; part < step.work.size(); ++part) {
    const auto& w = step.work[part];
    work.push_back({{"part", to_string(static_cast<Part>(part))},
                    {"seconds", w.seconds},
                    {"operations", w.operations},
                    {"bytes", w.bytes}});
  }
  json.update({{"replicas", step.replicas},
               {"shards", step.shards},
               {"micro_batches", step.micro_batches},
               {"tokens", step.tokens},
               {"updates", std::move(updates)},
               {"work", std::move(work)},
               {"step_seconds", step.seconds},
               {"waiting_seconds", step.waiting},
               {"slowing_seconds", step.slowing},
               {"bytes_in_nodes", step.in_nodes.bytes},
               {"bytes_between_nodes", step.between_nodes.bytes},
               {"tokens_per_second", step.tokens_per_second()},
               {"last_update_share_of_peak", step.last_update_share(*cluster.gpu)},
               {"share_of_peak", step.share(*cluster.gpu)},
               {"steps", plan.steps},
               {"validations", plan.validations},
               {"validation_seconds", step.validation_seconds},
               {"seconds", plan.seconds},
               {"gpu_hours", plan.gpu_hours(cluster)}});
  return json;
}

}  // namespace ratplus::plan
