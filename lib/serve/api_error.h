// ApiError: a request that is refused, as OpenAI's API reports it.
#pragma once

#include <string>
#include <utility>

#include "base/error.h"

namespace ratplus::serve {

/// An Error with the status of HTTP, the field of the request that is at fault, and a short name for programs.
class ApiError : public Error {
 public:
  ApiError(int status, std::string param, const std::string& message, std::string code = {})
      : Error(message), status_(status), param_(std::move(param)), code_(std::move(code)) {}

  int status() const { return status_; }
  const std::string& param() const { return param_; }  ///< empty: none
  const std::string& code() const { return code_; }    ///< empty: none

 private:
  int status_;
  std::string param_, code_;
};

}  // namespace ratplus::serve
