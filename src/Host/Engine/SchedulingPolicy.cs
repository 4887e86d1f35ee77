namespace Sluice;

/// <summary>Who comes first, and who has to make room.</summary>
public enum SchedulingPolicy
{
    /// <summary>In order of arrival; the latest makes room.</summary>
    Fcfs,

    /// <summary>The lowest <see cref="RequestOptions.Priority"/> first, and by arrival within one; the highest, and of these the latest, makes room.</summary>
    Priority,

    /// <summary>Whose prompt's longest part is cached is admitted first, so that pages are used before they are evicted; the latest makes room.</summary>
    LongestPrefixFirst,
}
