// The text of jobs/slurm/batch.sh, as it was when the program was built.
#pragma once

namespace ratplus::slurm {

extern const char* const batch_functions;

}  // namespace ratplus::slurm
