// How long OpenMP's threads spin before they sleep.
#pragma once

namespace ratplus::apps {

/// Executes this program again with GOMP_SPINCOUNT=1000, unless that or OMP_WAIT_POLICY is set; returns where nothing is
/// to be done or the program cannot be executed again. To be called before anything else: libgomp reads the environment
/// before main.
///
/// Between two loops a thread of libgomp spins 300,000 rounds, about a millisecond, and a step has some hundred loops. On
/// a machine with other load, or under a CPU quota, the spinning thread takes the time that the working one needs: two
/// threads are then several times slower than one. After 1,000 rounds they still meet the next loop without sleeping
/// where the machine is idle.
void shorten_spinning(char** argv);

}  // namespace ratplus::apps
