namespace Sluice.Templates;

/// <summary>A stable merge sort whose comparisons may fail, and are charged by the one who compares.</summary>
internal static class Sorting
{
    public static void Sort<T>(Runtime rt, List<T> items, Comparison<T> compare)
    {
        T[] from = [.. items], to = new T[from.Length];
        for (int width = 1; width < from.Length; width *= 2)
        {
            rt.Step(from.Length);
            for (int left = 0; left < from.Length; left += 2 * width)
            {
                int middle = Math.Min(left + width, from.Length), right = Math.Min(left + (2 * width), from.Length);
                for (int i = left, j = middle, k = left; k < right; k++)
                {
                    to[k] = i < middle && (j >= right || compare(from[j], from[i]) >= 0) ? from[i++] : from[j++];
                }
            }

            (from, to) = (to, from);
        }

        for (int i = 0; i < from.Length; i++)
        {
            items[i] = from[i];
        }
    }
}
