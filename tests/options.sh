# shellcheck shell=bash
# The options of tests/kill.sh, tests/slurm.sh and tests/cluster.sh. To be sourced after jobs/common.sh.

# read_options "NAME..." ARGUMENT...: --NAME VALUE sets the variable NAME; --keep and --help are for all. What is left in
# `program` is the path of ratplus, which must be there.
read_options() {
  local names=" $1 " option
  shift
  while (($# > 0)); do
    option=${1#--}
    case $1 in
      -h | --help) usage && exit ;;
      --keep)
        # shellcheck disable=SC2034 # the script's own
        keep=true
        ;;
      *)
        [[ $1 == --* && -n $option && $names == *" $option "* ]] || die "unknown option '$1'; --help lists the known ones"
        (($# > 1)) || die "$1 needs a value"
        printf -v "$option" '%s' "$2"
        shift
        ;;
    esac
    shift
  done
  [[ -x $program ]] || die "$program is missing; build it, or give --program"
  program=$(realpath "$program")
}
